"""One start of a server, from the row that precedes it to the first good answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import anyio
import attrs

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.domain.ownership import Owner, ServerRecord
from gglib.domain.server_props import ServerProps
from gglib.domain.state import ServerState
from gglib.errors import NodeUnreachable, NotRunning, PortInUse, StartFailed, StartTimeout
from gglib.ports.clock import Clock
from gglib.ports.engine import Engine
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.server_registry import ServerRegistry
from gglib.services.readiness import Outcome, OutcomeKind, last_lines, port_was_lost, until_settled
from gglib.services.server_questions import ServerQuestions
from gglib.services.server_reports import ServerReports

__all__ = ["PortLost", "Started", "Starter", "Wish"]


class PortLost(Exception):
    """Somebody else got the port that was chosen for the server. Nothing is left of it."""

    def __init__(self, failure: StartFailed) -> None:
        super().__init__(str(failure))
        self.failure = failure


@attrs.frozen
class Wish:
    """What to start, by what, and where."""

    config: ServerConfig
    engine: Engine
    runner_name: str
    runner: ProcessRunner
    waits_for_machine: bool = True
    """Whether a machine that goes away during the start is waited for."""


@attrs.frozen
class Started:
    """A server that is ready."""

    record: ServerRecord
    handle: ProcessHandle
    load_s: float
    props: ServerProps


class Starter:
    """Starts servers in the name of one owner. Whatever fails leaves no process and no row."""

    __slots__ = (
        "_clock",
        "_keep_alive",
        "_on_left",
        "_owner",
        "_questions",
        "_registry",
        "_reports",
        "timeout_s",
    )

    def __init__(
        self,
        registry: ServerRegistry,
        *,
        clock: Clock,
        reports: ServerReports,
        questions: ServerQuestions,
        owner: Owner,
        timeout_s: float,
        keep_alive: bool,
        on_left: Callable[[ServerRecord], None],
    ) -> None:
        """``on_left`` is told what could not be ended, since its machine had gone away."""
        self._on_left = on_left
        self._registry = registry
        self._clock = clock
        self._reports = reports
        self._questions = questions
        self._owner = owner
        self.timeout_s = timeout_s
        self._keep_alive = keep_alive

    async def start(self, wish: Wish) -> Started:
        """Start a server once and return when it is ready.

        Raises:
            PortLost: worth another try, on another port.
            PortInUse, StartFailed, StartTimeout, EngineCannot: as ``ServingService.start``.
            NodeUnreachable: its machine went away, and is not waited for.
        """
        runner = wish.runner
        record, launch = self._intent(wish)
        handle: ProcessHandle | None = None
        try:
            await self._registry.put(record)
            began = self._clock.monotonic()
            handle = await runner.start(launch)
            record = attrs.evolve(record, handle=handle)
            await self._registry.put(record)
            self._reports.started(record, handle)
            outcome = await until_settled(
                runner,
                handle,
                clock=self._clock,
                timeout_s=self.timeout_s,
                waits_for_machine=wish.waits_for_machine,
            )
            if outcome.kind is not OutcomeKind.READY:
                raise await self._failure(wish, runner, handle, outcome)
            load_s = self._clock.monotonic() - began
            # Here, where a cancellation still leaves nothing.
            props = await self._questions.props(wish.engine, handle, record.api_key)
            record = attrs.evolve(record, state=ServerState.READY)
            await self._registry.put(record)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._undo(runner, record, error)
            raise
        self._reports.ready(record, load_s)
        return Started(record, handle, load_s, props)

    def _intent(self, wish: Wish) -> tuple[ServerRecord, ServerConfig]:
        """Return the row to write, and what to start: the same, with identity and key."""
        server_id = new_server_id()
        carried = {SERVER_ID_VARIABLE: server_id}
        api_key = None
        variable = wish.engine.api_key_variable
        if variable is not None:
            # A user who sets it has clients of his own that know it.
            api_key = wish.config.environment.get(variable) or secrets.token_urlsafe(32)
            carried[variable] = api_key
        record = ServerRecord(
            server_id=server_id,
            owner=self._owner,
            config=wish.config,
            engine=wish.engine.name,
            runner=wish.runner_name,
            state=ServerState.STARTING,
            created_at=self._clock.now(),
            api_key=api_key,
            keep_alive=self._keep_alive,
        )
        environment = {**wish.config.environment, **carried}
        return record, attrs.evolve(wish.config, environment=environment)

    async def _failure(
        self, wish: Wish, runner: ProcessRunner, handle: ProcessHandle, outcome: Outcome
    ) -> Exception:
        """Return what to raise for a start that did not become ready."""
        lines = await last_lines(runner, handle)
        name = wish.config.model_name
        if outcome.kind is OutcomeKind.TIMEOUT:
            return StartTimeout(name, self.timeout_s, lines)
        if outcome.kind is OutcomeKind.UNTRUSTED:
            return StartFailed(name, None, (), outcome.reason)
        if wish.config.port is not None:
            if outcome.kind is OutcomeKind.PORT_HELD:
                return PortInUse(handle.port, outcome.port_held_by)
            return StartFailed(name, outcome.exit_status, lines)
        failure = StartFailed(name, outcome.exit_status, lines)
        if outcome.kind is OutcomeKind.PORT_HELD:
            reason = f"its port {handle.port} was taken by {outcome.port_held_by}"
            return PortLost(StartFailed(name, None, lines, reason))
        return PortLost(failure) if await port_was_lost(runner, handle, lines) else failure

    async def _undo(
        self, runner: ProcessRunner, record: ServerRecord, error: BaseException
    ) -> None:
        """Leave nothing of a start that failed or was called off."""
        began = self._clock.monotonic()
        if record.handle is not None:
            try:
                await runner.stop(record.handle)
            except NotRunning:
                pass
            except Exception as survived:
                # Its row is what leads to it later.
                await self._registry.put(attrs.evolve(record, state=ServerState.FAILED))
                if isinstance(survived, NodeUnreachable):
                    self._on_left(record)
                error.add_note(str(survived))
                self._reports.failed(record, survived)
                return
        await self._registry.remove(record.server_id)
        if isinstance(error, Exception):
            reason = error.failure if isinstance(error, PortLost) else error
            self._reports.failed(record, reason)
        elif record.handle is not None:
            self._reports.stopped(record, self._clock.monotonic() - began)
