"""What is known of servers on the far machine, and what can be done to one: a question each."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from gglib.domain.handle import ProcessHandle
from gglib.errors import InvalidValue, NodeUnreachable, PortInUse, StartFailed
from gglib_adapters.process_table import START_TIME_TOLERANCE_S
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import Step

__all__ = ["FarServer", "FarServers", "FarState", "Order"]


@attrs.frozen(kw_only=True)
class FarState:
    """What the far machine says of one server."""

    running: bool
    pid: int | None = None
    started_at: float | None = None
    """The kernel's start time of the process, in Unix seconds."""
    exit_status: int | None = None
    """Negative for a signal."""

    def is_of(self, handle: ProcessHandle) -> bool:
        """Return whether this is the very process of ``handle``, alive or dead."""
        if self.pid is None or self.started_at is None or handle.process_started_at is None:
            return False
        late_s = abs(self.started_at - handle.process_started_at)
        return self.pid == handle.pid and late_s <= START_TIME_TOLERANCE_S


@attrs.frozen(kw_only=True)
class Order:
    """A server to be started, all but its port."""

    handle: ProcessHandle
    engine: str
    nonce: str
    directory: str
    environment: Mapping[str, str]
    command: Sequence[str]


@attrs.frozen
class FarServer:
    """A server on record there."""

    handle: ProcessHandle
    engine: str | None
    running: bool


class FarServers:
    """Asks ``far.sh``. Server ids are ULIDs: they name folders there."""

    __slots__ = ("_link", "_node", "_orphan_ttl_s", "_runner")

    def __init__(self, link: Link, *, node: str, runner: str, orphan_ttl_s: int | None) -> None:
        self._link = link
        self._node = node
        self._runner = runner
        self._orphan_ttl_s = orphan_ttl_s or 0

    async def start(self, order: Order) -> ProcessHandle:
        """Start a server; asked twice with one nonce, it starts once.

        Raises:
            PortInUse, StartFailed: nothing was started.
            NodeUnreachable: it may have been started.
        """
        draft = order.handle
        variables = [f"{name}={value}" for name, value in order.environment.items()]
        carried = {
            "model_id": draft.model_id,
            "model_name": draft.model_name,
            "port": draft.port,
            "started_at": draft.started_at,
            "engine": order.engine,
        }
        try:
            said = await self._link.ask(
                "gglib_begin",
                draft.server_id,
                order.nonce,
                str(draft.port),
                json.dumps(carried),
                order.directory,
                str(self._orphan_ttl_s),
                str(len(variables)),
                *variables,
                *order.command,
            )
        except ValueError as error:
            raise StartFailed(draft.model_name, None, (), str(error)) from None
        word, _, rest = said.strip().partition(" ")
        if word == "taken":
            raise PortInUse(draft.port)
        if word == "no-program":
            reason = f"there is no program '{rest}' on {self._node}"
            raise StartFailed(draft.model_name, None, (), reason)
        if word == "unwritable":
            reason = (
                f"{self._node} can keep no record of it: {rest}; "
                "make room there, or choose another data_dir in the runner's section"
            )
            raise StartFailed(draft.model_name, None, (), reason)
        if word != "started":
            reason = f"{self._node} could not start it: {rest or said.strip() or 'no reason given'}"
            raise StartFailed(draft.model_name, None, (), reason)
        state = await self._state(["running", *rest.split()])
        return attrs.evolve(draft, pid=state.pid, process_started_at=state.started_at)

    async def state(self, server_id: str) -> FarState:
        """Return what became of a server."""
        said = await self._link.ask("gglib_state", server_id)
        return await self._state(said.split())

    async def all(self) -> list[FarServer]:
        """Return every server on record of this data directory and runner."""
        lines = (await self._link.ask("gglib_list")).split("\n")
        found = []
        for head, carried in zip(lines[::2], lines[1::2], strict=False):
            server_id, *words = head.split()
            server = self._recorded(server_id, await self._state(words), carried)
            if server is not None:
                found.append(server)
        return found

    async def ended_of(self, model_name: str) -> list[ProcessHandle]:
        """Return the servers of a model that have ended and are on record, newest first."""
        ended = [
            server.handle
            for server in await self.all()
            if not server.running and server.handle.model_name == model_name
        ]
        # ULIDs sort by time.
        return sorted(ended, key=lambda handle: handle.server_id, reverse=True)

    async def free_port(self, base: int) -> int | None:
        """Return the first port from ``base`` on that nobody there has."""
        said = (await self._link.ask("gglib_free_port", str(base))).strip()
        return int(said) if said.isdigit() else None

    async def port_is_taken(self, port: int) -> bool:
        """Return whether somebody listens on ``port`` there."""
        return (await self._link.ask("gglib_taken", str(port))).strip() == "yes"

    async def listening_ports(self) -> list[int]:
        """Return some ports that somebody there listens on, each once."""
        said = (await self._link.ask("gglib_listening_ports")).split()
        return list(dict.fromkeys(int(port) for port in said if port.isdigit()))

    async def holder(self, handle: ProcessHandle) -> str:
        """Return ``own``, ``gone``, ``nobody``, or ``other NAME``: who answers on its port."""
        return (await self._link.ask("gglib_holder", handle.server_id, str(handle.port))).strip()

    async def ask_to_end(self, handle: ProcessHandle, *, grace_s: float) -> str | None:
        """Begin to end a server there, which goes on without us: what ``ended`` is asked with.

        ``None`` = it is not running.
        """
        grace_ms = str(round(grace_s * 1000))
        said = await self._link.ask(
            "gglib_stop", handle.server_id, str(handle.pid), grace_ms, secrets.token_hex(8)
        )
        word, _, ender = said.strip().partition(" ")
        return ender if word == "ending" else None

    async def ended(self, server_id: str, ender: str) -> tuple[bool, tuple[int, ...]]:
        """Return whether its ending is over, and the pids of who survived that."""
        said = await self._link.ask("gglib_ended", server_id, ender)
        word, *survivors = said.split() or ["going"]
        return word != "going", tuple(int(each.partition(":")[0]) for each in survivors)

    async def unwritable(self) -> str | None:
        """Return why no server's record can be kept there; ``None`` = it can."""
        said = (await self._link.ask("gglib_keeps")).strip()
        return None if said == "yes" else said or "no answer"

    async def discard(self, server_id: str, nonce: str) -> None:
        """End what became of a start whose end nobody heard."""
        await self._link.ask("gglib_discard", server_id, nonce)

    async def forget(self, server_ids: Sequence[str]) -> None:
        """Remove the records and output of ended servers."""
        if server_ids:
            await self._link.ask("gglib_forget", *server_ids)

    async def exists(self, path: Path) -> bool:
        """Return whether there is such a file there."""
        return (await self._link.ask("gglib_exists", str(path))).strip() == "yes"

    async def _state(self, words: Sequence[str]) -> FarState:
        match words:
            case ["running" | "ended" as word, pid, ticks, boot_time, *status]:
                ticks_per_s = (await self._link.machine()).ticks_per_s
                if not all(each.isdecimal() for each in (pid, ticks, boot_time, *status[:1])):
                    # Anybody with that account may write anything there: it names no process.
                    return FarState(running=False)
                code = int(status[0]) if status else None
                return FarState(
                    running=word == "running",
                    pid=int(pid),
                    started_at=int(boot_time) + int(ticks) / ticks_per_s,
                    exit_status=code if code is None or code <= 128 else 128 - code,
                )
            case ["unknown"]:
                return FarState(running=False)
        said = " ".join(words)[:200]
        fix = f"is the disk of {self._node} full, or its /proc hidden?"
        raise NodeUnreachable(self._node, Step.SHELL, f"its sh said {said!r}", fix)

    def _recorded(self, server_id: str, state: FarState, carried: str) -> FarServer | None:
        try:
            told = json.loads(carried)
            handle = ProcessHandle(
                model_id=int(told["model_id"]),
                model_name=str(told["model_name"]),
                pid=state.pid,
                port=told["port"],
                started_at=told["started_at"],
                server_id=server_id,
                runner=self._runner,
                node=self._node,
                base_url=self._link.forwards.base_url(server_id),
                process_started_at=state.started_at,
            )
            engine = told.get("engine")
        except (ValueError, KeyError, TypeError, AttributeError, InvalidValue):
            # Anybody with that account may write anything there; what is not ours is left alone.
            return None
        return FarServer(handle, engine if isinstance(engine, str) else None, state.running)
