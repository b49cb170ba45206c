"""Pulls: asked for, kept in a queue that outlives every process, worked off one by one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.to_thread
import attrs

from gglib.domain.device import DeviceSurvey
from gglib.domain.events import ModelPullFailed
from gglib.domain.hub import FoundRepository, HubRevision, RepositoryReference
from gglib.domain.model import Model
from gglib.domain.pull import Pull, PullRequest, PullState, fetched_files, new_pull_id
from gglib.errors import GglibError, PullNotFound
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_hub import ModelHub
from gglib.ports.pull_queue import PullQueue
from gglib.services.models import ModelService
from gglib.services.pulling.fetching import (
    FileFetcher,
    Progress,
    bytes_there,
    folder_of,
    forget_files,
    remove_empty,
)
from gglib.services.pulling.planning import AlreadyThere, Offer, offers_of, plan_pull
from gglib.services.pulling.shelving import Shelf

__all__ = ["Outdated", "PullService", "PullStatus"]

#: How soon what another process has asked for, cancelled or ended is seen.
_LOOK_INTERVAL_S = 0.25
#: The same, where nothing is to be fetched.
_IDLE_LOOK_INTERVAL_S = 2.0
#: How often a pull that is followed is looked at.
_FOLLOW_INTERVAL_S = 0.1
#: Pulls that have ended and are still listed.
_KEPT_ENDED = 20

Survey: TypeAlias = Callable[[], Awaitable[DeviceSurvey]]


@attrs.frozen(kw_only=True)
class PullStatus:
    """A pull at one moment."""

    pull: Pull
    done_bytes: int = 0
    kept_bytes: int = 0
    """What was there before it was begun, of ``done_bytes``."""
    note: str | None = None
    """What is waited for, in words."""

    @property
    def total_bytes(self) -> int:
        """All its files together."""
        return self.pull.plan.size_bytes


@attrs.frozen(kw_only=True)
class Outdated:
    """A model whose repository has other files of the same names now, or has them no more."""

    model: Model
    commit: str | None
    """The newest; ``None``: it cannot be told, see ``reason``."""
    size_bytes: int = 0
    """What a pull would fetch."""
    reason: str | None = None


class PullService:
    """Fetches models from a hub. Any number of processes may ask; one fetches at a time."""

    def __init__(
        self,
        *,
        hub: ModelHub,
        fetcher: FileFetcher,
        shelf: Shelf,
        queue: PullQueue,
        models: ModelService,
        catalog: ModelCatalog,
        survey: Survey,
        data_dir: Path,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._hub = hub
        self._fetcher = fetcher
        self._shelf = shelf
        self._queue = queue
        self._models = models
        self._catalog = catalog
        self._survey = survey
        self._data_dir = data_dir
        self._clock = clock
        self._events = events
        self._progress: dict[str, Progress] = {}
        self._failures: dict[str, GglibError] = {}
        self._asked = anyio.Event()

    async def search(self, text: str, *, limit: int = 20) -> Sequence[FoundRepository]:
        """Return repositories with models; see ``ModelHub.search``."""
        return await self._hub.search(text, limit=limit)

    async def offers(self, reference: RepositoryReference) -> list[Offer]:
        """Return the quantizations of a repository, and whether each fits, the smallest first.

        Raises:
            HubError: the hub cannot tell.
        """
        revision = await self._hub.revision(reference.repository, reference.revision)
        return offers_of(revision, await self._survey())

    async def enqueue(self, request: PullRequest) -> Pull | AlreadyThere:
        """Put what is asked for in the queue, or find it there, or the model that has it.

        Raises:
            HubError: the hub cannot tell, or has no such thing.
            InvalidRequest: a projector is wanted, and there is none.
            ModelExists: the name that is asked for is taken by another model.
        """
        reference = request.reference
        revision = await self._hub.revision(reference.repository, reference.revision)
        offers = offers_of(revision, await self._survey())
        planned = plan_pull(request, revision, offers, await self._models.list())
        if isinstance(planned, AlreadyThere):
            return planned
        pull = Pull(id=new_pull_id(), request=request, plan=planned, created_at=self._clock.now())
        await self._forget_ended(pull)
        pull = await self._queue.add(pull)
        self._asked.set()
        return pull

    async def list(self) -> list[PullStatus]:
        """Return what is queued, under way and has ended lately, the oldest first."""
        pulls = await self._queue.list()
        with self._queue.fetching() as held:
            statuses = [await self._status(pull) for pull in pulls]
        if not held:
            return statuses
        # Nobody fetches: whoever did was killed, or told to stop.
        return [
            attrs.evolve(status, note="interrupted: pulled again, or by a gateway, it goes on")
            if status.pull.state is PullState.RUNNING
            else status
            for status in statuses
        ]

    async def cancel(self, pull_id: str) -> Pull:
        """Give up a pull: what came of it is deleted, also if it has failed.

        One that is done stays as it is.

        Raises:
            PullNotFound: there is none of that id.
        """
        now = self._clock.now()

        def give_up(pull: Pull) -> Pull:
            if pull.state is PullState.DONE:
                return pull
            return attrs.evolve(pull, state=PullState.CANCELLED, ended_at=now)

        pull = await self._queue.edit(pull_id, give_up)
        if pull is None:
            raise PullNotFound(pull_id)
        if pull.state is PullState.CANCELLED:
            with self._queue.fetching() as held:
                # Whoever fetches it sees that it is cancelled, and deletes it then.
                if held:
                    await self._forget_files(pull)
        return pull

    async def outdated(self) -> Sequence[Outdated]:
        """Return the models from hubs that a pull would change, by name."""
        found = []
        for model in await self._models.list():
            if model.origin.kind == "hub" and model.origin.repository is not None:
                try:
                    revision = await self._hub.revision(
                        model.origin.repository, model.origin.branch
                    )
                except GglibError as error:
                    found.append(Outdated(model=model, commit=None, reason=str(error)))
                    continue
                if (newer := _newer(model, revision)) is not None:
                    found.append(newer)
        return found

    async def follow(self, pull_id: str) -> AsyncGenerator[PullStatus, None]:
        """Return the pull's status whenever it has changed, until it has ended.

        Raises:
            PullNotFound: it is not on record, or no more.
        """
        last = None
        while True:
            pull = await self._queue.get(pull_id)
            if pull is None:
                raise PullNotFound(pull_id)
            status = await self._status(pull)
            if status != last:
                yield status
            if pull.state.ended:
                return
            last = status
            await self._clock.sleep(_FOLLOW_INTERVAL_S)

    def failure(self, pull_id: str) -> GglibError | None:
        """Return why a pull failed that this process has worked at."""
        return self._failures.get(pull_id)

    async def work(self, only: str | None = None) -> None:
        """Work off the queue for ever; or one pull of it, until that has ended.

        While another process fetches, this one waits.
        """
        while True:
            if await self._next(only) is not None:
                with self._queue.fetching() as held:
                    while held and (pull := await self._next(only)) is not None:
                        await self._run(pull)
            if only is None:
                await self._wait_for_more()
                continue
            pull = await self._queue.get(only)
            if pull is None or pull.state.ended:
                return
            await self._clock.sleep(_LOOK_INTERVAL_S)

    async def _wait_for_more(self) -> None:
        """Return when something was asked for here; or when it is time to look elsewhere."""
        waiting = await self._next(None) is not None
        with anyio.move_on_after(_LOOK_INTERVAL_S if waiting else _IDLE_LOOK_INTERVAL_S):
            await self._asked.wait()
        self._asked = anyio.Event()

    async def _next(self, only: str | None) -> Pull | None:
        waiting = [pull for pull in await self._queue.list() if not pull.state.ended]
        if only is not None:
            waiting = [pull for pull in waiting if pull.id == only]
        # What was under way when its process was killed comes first.
        waiting.sort(key=lambda pull: (pull.state is not PullState.RUNNING, pull.id))
        return waiting[0] if waiting else None

    async def _run(self, pull: Pull) -> None:
        self._progress[pull.id] = Progress(total_bytes=pull.plan.size_bytes)
        now = self._clock.now
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._cancel_with, pull.id, tasks.cancel_scope)
                started = await self._queue.edit(pull.id, _started)
                if started is None or started.state.ended:
                    tasks.cancel_scope.cancel()
                else:
                    await self._pull(pull)
                    await self._queue.edit(
                        pull.id, partial(_ended, state=PullState.DONE, now=now())
                    )
                    tasks.cancel_scope.cancel()
        except* (GglibError, OSError) as group:
            await self._fail(pull, group)
        except* Exception as group:
            # A bug: it would come again at every start.
            await self._fail(pull, group)
            raise
        finally:
            self._progress.pop(pull.id, None)
        after = await self._queue.get(pull.id)
        if after is None or after.state is PullState.CANCELLED:
            await self._forget_files(pull)

    async def _pull(self, pull: Pull) -> None:
        folder = folder_of(self._data_dir, pull)
        digests = await self._fetcher.fetch(pull, self._progress[pull.id])
        _model, replaced = await self._shelf.put(pull, folder, digests)
        if replaced:
            await self._delete_unused(replaced)

    async def _cancel_with(self, pull_id: str, scope: anyio.CancelScope) -> None:
        """End the work at a pull soon after somebody, in any process, has cancelled it."""
        while True:
            await self._clock.sleep(_LOOK_INTERVAL_S)
            pull = await self._queue.get(pull_id)
            if pull is None or pull.state is PullState.CANCELLED:
                scope.cancel()
                return

    async def _fail(self, pull: Pull, group: BaseExceptionGroup[Exception]) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, GglibError):
            self._failures[pull.id] = error
        self._events.emit(
            ModelPullFailed(
                at=self._clock.now(),
                pull_id=pull.id,
                repository=pull.request.reference.repository,
                reason=str(error),
            )
        )
        await self._queue.edit(
            pull.id,
            partial(
                _ended,
                state=PullState.FAILED,
                now=self._clock.now(),
                error=str(error),
                error_code=type(error).__name__,
            ),
        )

    async def _forget_ended(self, pull: Pull) -> None:
        """Forget the oldest of those that have ended, and those that tried the same as ``pull``."""
        ended = [each for each in await self._queue.list() if each.state.ended]
        same = {each.id for each in ended if each.fetches_the_same_as(pull)}
        for each in ended:
            if each.id in same or each in ended[:-_KEPT_ENDED]:
                await self._queue.remove(each.id)

    async def _forget_files(self, pull: Pull) -> None:
        used = await self._used()
        folder = folder_of(self._data_dir, pull)
        await anyio.to_thread.run_sync(forget_files, folder, pull, used.__contains__)

    async def _delete_unused(self, paths: Sequence[Path]) -> None:
        used = await self._used()

        def delete() -> None:
            for path in paths:
                if path not in used and path.is_relative_to(self._data_dir):
                    path.unlink(missing_ok=True)
                    remove_empty(path.parent)

        await anyio.to_thread.run_sync(delete)

    async def _used(self) -> set[Path]:
        rows = await self._catalog.list()
        return {path for row in rows for path in (*row.paths, row.mmproj_path) if path is not None}

    async def _status(self, pull: Pull) -> PullStatus:
        progress = self._progress.get(pull.id)
        if progress is not None and progress.done:
            return PullStatus(
                pull=pull,
                done_bytes=progress.done_bytes,
                kept_bytes=progress.kept_bytes,
                note=progress.note,
            )
        if pull.state.ended:
            done = pull.plan.size_bytes if pull.state is PullState.DONE else 0
            return PullStatus(pull=pull, done_bytes=done)
        folder = folder_of(self._data_dir, pull)
        return PullStatus(
            pull=pull, done_bytes=await anyio.to_thread.run_sync(bytes_there, folder, pull)
        )


def _started(pull: Pull) -> Pull:
    return pull if pull.state.ended else attrs.evolve(pull, state=PullState.RUNNING)


def _ended(
    pull: Pull,
    *,
    state: PullState,
    now: float,
    error: str | None = None,
    error_code: str | None = None,
) -> Pull:
    if pull.state.ended:
        return pull
    return attrs.evolve(pull, state=state, ended_at=now, error=error, error_code=error_code)


def _newer(model: Model, revision: HubRevision) -> Outdated | None:
    if model.origin.revision == revision.commit:
        return None
    there = {file.name: file for file in revision.files}
    known = fetched_files(model)
    gone = [name for name in known if name not in there]
    if gone:
        reason = f"{revision.repository} has no {gone[0]} any more"
        return Outdated(model=model, commit=None, reason=reason)
    changed = [there[name] for name, sha256 in known.items() if there[name].sha256 != sha256]
    if not changed:
        return None
    size_bytes = sum(file.size_bytes for file in changed)
    return Outdated(model=model, commit=revision.commit, size_bytes=size_bytes)
