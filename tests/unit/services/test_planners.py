"""Planners: each by a table of cases, and all by what must hold of any plan."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.routing import terms

from gglib.errors import DoesNotFit, GglibError, InvalidValue, NoRoom
from gglib.services.routing.planners import (
    CappedPlanner,
    CountPlanner,
    ExclusivePlanner,
    Group,
    GroupsPlanner,
    Held,
    MatrixPlanner,
    MemoryPlanner,
    Planner,
)

NAMES = "abcdefgh"
BUDGETS = {"gpu0": 10, "gpu1": 6, "ram": 20}


def held(name: str, *, used_at: float = 0.0, pinned: bool = False, **how: bool) -> Held:
    """Return a server that has a place; it has the number of its model."""
    model = terms(NAMES.index(name) + 1, name)
    return Held(
        model,
        model.model_id,
        used_at=used_at,
        pinned=pinned,
        movable=how.get("movable", not pinned),
        idle=how.get("idle", True),
    )


def names(plan: frozenset[int] | None) -> str | None:
    """Return the names of a plan's servers."""
    return None if plan is None else "".join(NAMES[number - 1] for number in sorted(plan))


def cheapest_first(there: list[Held]) -> list[Held]:
    """Return them as a planner gets them."""
    return sorted(there, key=lambda each: each.cost)


TARGET = terms(8, "h")


def test_exclusive_evicts_the_only_one() -> None:
    """Whatever it does."""
    assert names(ExclusivePlanner().plan(TARGET, [held("a", idle=False)])) == "a"
    assert names(ExclusivePlanner().plan(TARGET, [])) == ""
    assert ExclusivePlanner().plan(TARGET, [held("a", movable=False)]) is None


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([held("a")], ""),
        ([held("a", used_at=2), held("b", used_at=1)], "b"),
        ([held("a", used_at=1, idle=False), held("b", used_at=2)], "b"),
        ([held("a", used_at=1, movable=False), held("b", used_at=2)], "b"),
        ([held("a", movable=False), held("b", movable=False)], None),
        ([held("a"), held("b", used_at=1), held("c", used_at=2)], "ab"),
        ([held("a", pinned=True), held("b")], "b"),
    ],
)
def test_count_evicts_the_least_recently_used(there: list[Held], expected: str | None) -> None:
    """Idle ones first; no more than it takes."""
    assert names(CountPlanner(2).plan(TARGET, cheapest_first(there))) == expected


def test_count_of_pinned_models_alone_has_no_room() -> None:
    """Nobody will ever go by himself."""
    with pytest.raises(NoRoom, match="'a', 'b'"):
        CountPlanner(2).plan(TARGET, [held("a", pinned=True), held("b", pinned=True)])
    with pytest.raises(InvalidValue):
        CountPlanner(0)


GROUPS = [
    Group(name="swap", members=("a", "b")),
    Group(name="together", members=("c", "d"), swap=False, exclusive=False),
    Group(name="stays", members=("e", "f"), swap=False, exclusive=False, persistent=True),
]


@pytest.mark.parametrize(
    ("target", "there", "expected"),
    [
        ("a", "b", "b"),
        ("a", "bcde", "bcd"),
        ("c", "ad", ""),
        ("e", "acd", ""),
        ("g", "acdef", "acd"),
        ("g", "h", "h"),
        ("a", "g", "g"),
    ],
)
def test_groups_swap_exclude_and_persist(target: str, there: str, expected: str) -> None:
    """As llama-swap's: within a group, across groups, and for those in none."""
    model = held(target).terms
    assert names(GroupsPlanner(GROUPS).plan(model, [held(name) for name in there])) == expected


def test_groups_wait_for_who_cannot_go_and_refuse_for_pinned() -> None:
    """A start that is under way is waited for."""
    planner = GroupsPlanner(GROUPS)
    assert planner.plan(held("a").terms, [held("b", movable=False)]) is None
    with pytest.raises(NoRoom, match="group 'swap'"):
        planner.plan(held("a").terms, [held("b", pinned=True)])
    with pytest.raises(InvalidValue, match="'swap'"):
        GroupsPlanner([*GROUPS, Group(name="again", members=("a",))])


MATRIX = MatrixPlanner([("h", "a", "b"), ("h", "c", "d"), ("a", "e")], costs={"a": 5, "c": 0})


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], ""),
        ([held("a"), held("c")], "c"),
        ([held("b"), held("d")], "d"),
        ([held("b", idle=False), held("d")], "d"),
        ([held("b"), held("d", idle=False)], "b"),
        ([held("e")], "e"),
        ([held("a", movable=False), held("c")], "c"),
        ([held("a", movable=False), held("c", movable=False)], None),
        ([held("c", pinned=True), held("b")], "b"),
    ],
)
def test_matrix_chooses_the_set_that_costs_least(there: list[Held], expected: str | None) -> None:
    """Ties: who disturbs fewer at work, then who was said first."""
    assert names(MATRIX.plan(TARGET, there)) == expected


def test_matrix_holds_hundreds_of_models_and_refuses_what_pinned_ones_exclude() -> None:
    """No set of bits to run out of."""
    models = [terms(number, f"m{number}") for number in range(300)]
    planner = MatrixPlanner([tuple(model.name for model in models)])
    assert (
        planner.plan(models[0], [Held(model, model.model_id) for model in models[1:]])
        == frozenset()
    )
    with pytest.raises(NoRoom):
        planner.plan(TARGET, [Held(models[0], 1, pinned=True, movable=False)])
    with pytest.raises(InvalidValue):
        MatrixPlanner([], costs={"a": -1})


def test_memory_evicts_no_more_than_it_takes() -> None:
    """A larger one makes the smaller one's going needless, though that was used longer ago."""
    small, large = (terms(n, NAMES[n - 1], memory={"gpu0": need}) for n, need in ((1, 2), (2, 7)))
    there = [Held(small, 1, used_at=1), Held(large, 2, used_at=2)]
    planner = MemoryPlanner(BUDGETS)
    assert names(planner.plan(terms(8, memory={"gpu0": 7}), there)) == "b"
    assert names(planner.plan(terms(8, memory={"gpu0": 3}), there)) == "a"
    assert names(planner.plan(terms(8, memory={"gpu1": 6}), there)) == ""


def test_memory_says_what_is_missing_where() -> None:
    """Beside pinned ones, and on a device that has no budget."""
    pinned = Held(terms(1, memory={"gpu0": 4}), 1, pinned=True, movable=False)
    with pytest.raises(DoesNotFit) as caught:
        MemoryPlanner(BUDGETS).plan(terms(8, memory={"gpu0": 7}), [pinned])
    error = caught.value
    assert (error.needed_bytes, error.available_bytes, error.device) == (7, 6, "gpu0")
    with pytest.raises(DoesNotFit, match="npu"):
        MemoryPlanner(BUDGETS).plan(terms(8, memory={"npu": 1}), [])


@pytest.mark.parametrize(
    "planner",
    [GroupsPlanner(GROUPS), MatrixPlanner([("a", "b")]), MemoryPlanner(BUDGETS), CountPlanner(3)],
    ids=lambda planner: type(planner).__name__,
)
def test_further_server_of_a_model_evicts_none_of_its_own(planner: Planner) -> None:
    """A model is not in conflict with itself, though its group swaps; each takes a place."""
    model = terms(1, "a", memory={"gpu0": 5})
    assert planner.plan(model, [Held(model, 1)]) == frozenset()


def test_servers_of_one_model_need_memory_and_a_place_each() -> None:
    """The third is one too many."""
    model = terms(1, "a", memory={"gpu0": 5})
    two = [Held(model, 1, movable=False), Held(model, 2, movable=False)]
    assert MemoryPlanner(BUDGETS).plan(model, two) is None
    assert CountPlanner(2).plan(model, two) is None


def test_plan_names_one_server_of_a_model_and_spares_the_other() -> None:
    """An idle one that its model can spare goes before any other idle one."""
    a, b = terms(1, "a"), terms(2, "b")
    there = [Held(a, 1, used_at=3), Held(a, 2, spare=True, used_at=4), Held(b, 3, used_at=1)]
    assert CountPlanner(3).plan(TARGET, cheapest_first(there)) == {2}


def test_pinned_model_with_several_servers_is_named_once() -> None:
    """In the refusal."""
    model = terms(1, "a")
    with pytest.raises(NoRoom) as caught:
        CountPlanner(2).plan(TARGET, [Held(model, n, movable=False, pinned=True) for n in (1, 2)])
    assert caught.value.pinned == ("a",)


MEMORY = st.dictionaries(st.sampled_from(sorted(BUDGETS)), st.integers(0, 12))


@st.composite
def scenes(draw: st.DrawFn) -> list[Held]:
    """Return servers with places, in any state; several may be of one model."""
    scene = []
    for number in range(1, draw(st.integers(0, 7)) + 1):
        pinned = draw(st.integers(0, 4)) == 0
        model = draw(st.integers(1, number))
        scene.append(
            Held(
                terms(model, NAMES[model - 1], memory=draw(MEMORY)),
                number,
                movable=not pinned and draw(st.booleans()),
                pinned=pinned,
                idle=draw(st.booleans()),
                spare=draw(st.booleans()),
                used_at=draw(st.floats(0, 10)),
            )
        )
    return cheapest_first(scene)


PLANNERS: list[Planner] = [
    ExclusivePlanner(),
    CountPlanner(3),
    GroupsPlanner(GROUPS),
    MATRIX,
    MemoryPlanner(BUDGETS),
    CappedPlanner(MemoryPlanner(BUDGETS), 3),
]


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
@given(scene=scenes(), memory=MEMORY)
def test_plan_names_movable_ones_and_once_they_are_gone_the_model_fits(
    planner: Planner, scene: list[Held], memory: dict[str, int]
) -> None:
    """Asked again, it gives the same answer; without its victims, nothing more has to go."""
    target = terms(8, "h", memory=memory)
    plan = _plan(planner, target, scene)
    assert plan == _plan(planner, target, list(scene))
    if isinstance(plan, frozenset):
        assert plan <= {each.server for each in scene if each.movable}
        rest = [each for each in scene if each.server not in plan]
        assert planner.plan(target, rest) == frozenset()
    elif plan is None:
        assert any(not each.movable for each in scene)


@given(scene=scenes(), memory=MEMORY)
def test_memory_plan_is_minimal_and_keeps_every_budget(
    scene: list[Held], memory: dict[str, int]
) -> None:
    """Spare any victim, and some device would hold more than it has."""
    target = terms(8, "h", memory=memory)
    plan = _plan(MemoryPlanner(BUDGETS), target, scene)
    if not isinstance(plan, frozenset):
        return

    def fits(kept: Sequence[Held]) -> bool:
        return all(
            need + sum(each.terms.memory.get(device, 0) for each in kept) <= BUDGETS[device]
            for device, need in memory.items()
            if need
        )

    kept = [each for each in scene if each.server not in plan]
    assert fits(kept)
    for each in scene:
        if each.server in plan:
            assert not fits([*kept, each])


def _plan(
    planner: Planner, target: object, scene: list[Held]
) -> frozenset[int] | type[GglibError] | None:
    try:
        return planner.plan(target, scene)  # type: ignore[arg-type]
    except (DoesNotFit, NoRoom) as error:
        return type(error)
