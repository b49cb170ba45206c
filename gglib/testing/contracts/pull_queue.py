"""Every promise of ``PullQueue``, as a test that its adapters inherit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from gglib.domain.hub import HubFile, RepositoryReference
from gglib.domain.pull import Pull, PullPlan, PullRequest, PullState, new_pull_id
from gglib.ports.context import AdapterContext
from gglib.ports.pull_queue import PullQueue
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract, at_once

__all__ = ["OpenPullQueue", "PullQueueContract", "full_pull", "plain_pull"]

#: A queue adapter's factory.
OpenPullQueue: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[PullQueue]]


def plain_pull(name: str = "tiny") -> Pull:
    """Return a pull of one file that nobody else fetches."""
    return Pull(
        id=new_pull_id(),
        request=PullRequest(reference=RepositoryReference(repository=f"acme/{name}")),
        plan=PullPlan(
            commit="0" * 40,
            quantization="Q4_K_M",
            files=(HubFile(path=f"{name}.gguf", size_bytes=1),),
            model_name=name,
        ),
        created_at=0.0,
    )


def full_pull() -> Pull:
    """Return a pull that has every field set."""
    sha256 = "0123456789abcdef" * 4
    return Pull(
        id=new_pull_id(),
        request=PullRequest(
            reference=RepositoryReference(
                repository="acme/big", quantization="q8_0", revision="refs/pr/1"
            ),
            name="模型 of 'mine'",
            mmproj=True,
        ),
        plan=PullPlan(
            commit="f" * 40,
            quantization="Q8_0",
            files=(
                HubFile(path="Q8_0/a-00001-of-00002.gguf", size_bytes=2**63 - 1, sha256=sha256),
                HubFile(path="Q8_0/a-00002-of-00002.gguf", size_bytes=0),
            ),
            projector=HubFile(path="mmproj ü.gguf", size_bytes=7, sha256=sha256),
            model_name="模型 of 'mine'",
            updates="mine",
        ),
        state=PullState.FAILED,
        created_at=1_700_000_000.123456,
        ended_at=0.1 + 0.2,
        error='it\'s "broken"; --\n',
        error_code="HubUnavailable",
    )


class PullQueueContract(Contract):
    """What every queue of pulls keeps.

    Subclass it under a name that begins with ``Test``, and override ``open_queue``. One whose
    pulls end with its object says ``shared_by_openings = False``.
    """

    shared_by_openings: bool = True
    """Whether another opening over the same data directory has the same pulls."""

    @pytest.fixture
    def open_queue(self) -> OpenPullQueue:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_queue: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def queue(
        self, open_queue: OpenPullQueue, context: AdapterContext
    ) -> AsyncIterator[PullQueue]:
        """Open an empty queue."""
        async with open_queue(context) as queue:
            yield queue

    async def test_opened_queue_is_of_the_port_and_empty(self, queue: PullQueue) -> None:
        """The factory's context manager gives a ``PullQueue``."""
        assert isinstance(queue, PullQueue), "bootstrap takes subclasses of PullQueue only"
        assert await queue.list() == [], "list() of a new queue must be empty"
        assert await queue.get("nothing") is None, "get() of an unknown pull must be None"

    async def test_pulls_come_back_whole(self, queue: PullQueue) -> None:
        """Every field, in any script and of any size."""
        for pull in (plain_pull(), full_pull()):
            assert await queue.add(pull) == pull, "add() must return what it keeps"
            assert await queue.get(pull.id) == pull, "get() must return every field"

    async def test_pulls_are_listed_oldest_first(self, queue: PullQueue) -> None:
        """By their ids, whatever the order in which they were added."""
        pulls = [attrs.evolve(plain_pull(f"m{n}"), id=f"0{n}" + "0" * 24) for n in range(4)]
        for number in (2, 0, 3, 1):
            await queue.add(pulls[number])
        assert await queue.list() == pulls, "list() must be sorted by id"

    async def test_same_files_are_queued_once(self, queue: PullQueue) -> None:
        """Whoever asks for what is under way gets that; what has ended is in nobody's way."""
        first = await queue.add(plain_pull())
        again = attrs.evolve(plain_pull(), created_at=9.0)
        assert await queue.add(again) == first, "add() must find the pull that does the same"
        other = plain_pull("other")
        assert await queue.add(other) == other, "add() must keep a pull of other files"

        ended = attrs.evolve(first, state=PullState.CANCELLED)
        await queue.edit(first.id, lambda _pull: ended)
        assert await queue.add(again) == again, "a pull that has ended must not stand for another"

    async def test_same_pull_asked_for_at_once_is_one(self, queue: PullQueue) -> None:
        """Looking and adding are one transaction."""
        await at_once(lambda _number: queue.add(plain_pull()))
        assert len(await queue.list()) == 1, "add() must look and add in one transaction"

    async def test_edit_replaces_what_is_there(self, queue: PullQueue) -> None:
        """It is given what is kept now, and returns what is kept then."""
        pull = await queue.add(plain_pull())
        running = attrs.evolve(pull, state=PullState.RUNNING)
        seen: list[Pull] = []

        def change(now: Pull) -> Pull:
            seen.append(now)
            return running

        assert await queue.edit(pull.id, change) == running, "edit() must return what it keeps"
        assert seen == [pull], "edit() must be given what is kept"
        assert await queue.list() == [running], "edit() must replace the whole pull"
        assert await queue.edit("nothing", change) is None, "edit() of no pull must be None"

    async def test_edits_at_once_lose_nothing(self, queue: PullQueue) -> None:
        """Reading and writing are one transaction."""
        pull = await queue.add(plain_pull())

        def older(now: Pull) -> Pull:
            return attrs.evolve(now, created_at=now.created_at + 1)

        await at_once(lambda _number: queue.edit(pull.id, older))
        found = await queue.get(pull.id)
        assert found is not None, "edit() must keep the pull"
        assert found.created_at == 10, "edit() must lose no other edit"

    async def test_change_that_raises_changes_nothing(self, queue: PullQueue) -> None:
        """And its error is the caller's."""
        pull = await queue.add(plain_pull())

        def fail(_pull: Pull) -> Pull:
            raise LookupError

        with pytest.raises(LookupError):
            await queue.edit(pull.id, fail)
        assert await queue.list() == [pull], "a change that raises must change nothing"

    async def test_removed_pull_is_gone_and_may_be_removed_again(self, queue: PullQueue) -> None:
        """The others stay."""
        pull, other = await queue.add(plain_pull()), await queue.add(full_pull())
        await queue.remove(pull.id)
        await queue.remove(pull.id)
        assert await queue.list() == [other], "remove() must forget this pull, and no other"

    async def test_one_fetches_at_a_time(self, queue: PullQueue) -> None:
        """Nobody waits; the right is free again when its block ends, by an error too."""
        for _ in range(2):
            with pytest.raises(LookupError), queue.fetching() as held:  # noqa: PT012 - both ends
                assert held, "fetching() must be True where nobody fetches"
                with queue.fetching() as other:
                    assert not other, "fetching() must be False while somebody fetches"
                raise LookupError

    async def test_openings_share_pulls_and_the_right_to_fetch(
        self, open_queue: OpenPullQueue, context: AdapterContext
    ) -> None:
        """Processes on one data directory are one queue, now and later."""
        if not self.shared_by_openings:
            pytest.skip("shared_by_openings = False: this queue ends with its object")
        async with open_queue(context) as one, open_queue(context) as two:
            pull = await one.add(full_pull())
            assert await two.list() == [pull], "another opening must see what is added"
            with one.fetching(), two.fetching() as held:
                assert not held, "two openings must not fetch at once"
            with two.fetching() as held:
                assert held, "what one lets go another may have"
        async with open_queue(context) as later:
            assert await later.list() == [pull], "pulls must outlive the opening"
