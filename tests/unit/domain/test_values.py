"""Models, handles, health, identifiers and events."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from support.strategies import models

from gglib.domain import events
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.ids import check_server_id, new_server_id
from gglib.domain.model import Model, ModelDefaults, Profile, check_alias
from gglib.errors import InvalidValue


def model(**fields: Any) -> Model:
    """Return a model."""
    return Model(**{"id": 1, "name": "m", "paths": ["/m.gguf"], "size_bytes": 1, **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", -1),
        ("name", ""),
        ("paths", ()),
        ("size_bytes", -1),
        ("aliases", ("ok", "-no")),
        ("added_at", -1.0),
    ],
)
def test_wrong_model_is_refused_by_its_field(field: str, value: Any) -> None:
    """A model is checked when it is made."""
    with pytest.raises(InvalidValue) as caught:
        model(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server", {"model_path": "/x"}),
        ("ttl_s", -2),
        ("pinned", "no"),
        ("priority", "high"),
        ("priority", 1001),
        ("concurrency_limit", 0),
        ("memory_bytes", 0),
        ("engine", ""),
        ("runner", ""),
        ("runner", []),
        ("runner", ["box", ""]),
        ("runner", ["box", "box"]),
        ("runner", ["box", 1]),
        ("replicas", 0),
        ("replicas", None),
        ("replicas", True),
    ],
)
def test_wrong_defaults_are_refused_by_their_field(field: str, value: Any) -> None:
    """Defaults are checked when they are made."""
    with pytest.raises(InvalidValue) as caught:
        ModelDefaults(**{field: value})
    assert caught.value.field == field


def test_runners_are_one_several_or_the_default() -> None:
    """A list of one is that one."""
    assert ModelDefaults().runners == ()
    assert ModelDefaults(runner="box").runners == ("box",)
    assert ModelDefaults(runner=["box"]) == ModelDefaults(runner="box")
    assert ModelDefaults(runner=("box", "attic")).runners == ("box", "attic")


def test_replicas_of_a_model_with_a_fixed_port_are_refused() -> None:
    """The second one could never start."""
    assert ModelDefaults(server={"base_port": 9000}, replicas=2).replicas == 2
    with pytest.raises(InvalidValue, match="`port`"):
        ModelDefaults(server={"port": 9000}, replicas=2)


def test_defaults_hold_plain_data_that_nobody_changes() -> None:
    """Paths become texts, and the mapping is a frozen copy."""
    server = {"mmproj_path": Path("/p"), "context_size": 8}
    defaults = ModelDefaults(server=server)
    server["context_size"] = 9
    assert defaults.server == {"mmproj_path": "/p", "context_size": 8}
    with pytest.raises(TypeError):
        defaults.server["context_size"] = 9  # type: ignore[index]


@given(models)
def test_model_hashes_as_it_compares(made: Model) -> None:
    """Equal models have equal hashes."""
    assert hash(made) == hash(attrs.evolve(made))


def test_path_of_a_model_is_its_first_shard() -> None:
    """That is the file an engine is given."""
    assert model(paths=["/a-1.gguf", "/a-2.gguf"]).path == Path("/a-1.gguf")


def test_single_alias_is_not_taken_apart() -> None:
    """A text where a list belongs is a list of one, not of letters."""
    assert model(aliases="alias", tags="tag").aliases == ("alias",)
    assert model(aliases="alias", tags="tag").tags == ("tag",)


def test_alias_is_checked_like_a_name() -> None:
    """What may not name a model may not be an alias."""
    assert check_alias("a") == "a"
    with pytest.raises(InvalidValue) as caught:
        check_alias("../a")
    assert caught.value.field == "aliases"


def test_profile_needs_a_name() -> None:
    """A profile is asked for by name."""
    with pytest.raises(InvalidValue):
        Profile(name="")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 0),
        ("port", None),
        ("started_at", -1.0),
        ("server_id", ""),
        ("server_id", None),
        ("base_url", "here:1"),
        ("ca_file", ""),
    ],
)
def test_wrong_handle_is_refused_by_its_field(field: str, value: Any) -> None:
    """A handle without a port or an identity is none."""
    fields = {
        "model_id": 1, "model_name": "m", "pid": 1, "port": 1, "started_at": 1.0,
        "server_id": "s", "runner": "r", "node": "n", "base_url": "http://here:1",
    }  # fmt: skip
    assert ProcessHandle(**fields).process_started_at is None
    with pytest.raises(InvalidValue) as caught:
        ProcessHandle(**{**fields, field: value})
    assert caught.value.field == field


def test_healthy_state_is_fully_loaded() -> None:
    """A server that answers has loaded."""
    assert ServerHealth.ok(last_check=1.0, slots_total=4, slots_busy=1) == ServerHealth(
        healthy=True, last_check=1.0, slots_total=4, slots_busy=1, load_progress=1.0
    )


def test_unhealthy_state_says_why_and_keeps_what_was_last_known() -> None:
    """The time of the last success survives a failure."""
    assert ServerHealth.unhealthy("loading", last_check=1.0, load_progress=0.5) == ServerHealth(
        healthy=False, message="loading", last_check=1.0, load_progress=0.5
    )


def test_new_server_ids_are_valid_and_differ() -> None:
    """Each start is somebody else."""
    made = {new_server_id() for _ in range(100)}
    assert len(made) == 100
    assert all(check_server_id(server_id) == server_id for server_id in made)


@pytest.mark.parametrize("value", ["", "x", "../../etc/passwd", "8" + "0" * 25, "0" * 27, "u" * 26])
def test_text_that_is_no_server_id_is_refused(value: str) -> None:
    """Ids are joined to paths: nothing else passes."""
    with pytest.raises(InvalidValue, match="a ULID"):
        check_server_id(value)


KINDS = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, events.Event) and kind is not events.Event
]


def test_events_have_distinct_past_tense_names() -> None:
    """Each event is one dotted literal, and exported."""
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in names)
    assert {kind.__name__ for kind in KINDS} == set(events.__all__) - {"Event"}


@pytest.mark.parametrize("kind", KINDS)
def test_event_is_frozen(kind: type[events.Event]) -> None:
    """What happened does not change."""
    fields = {field.name: 1 for field in attrs.fields(kind)}
    event = kind(**fields)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.at = 2.0  # type: ignore[misc]
