"""The connection to the other machine: made when it is needed, kept while servers are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from gglib.errors import NodeUnreachable
from gglib.ports.clock import Clock
from gglib_adapters.runners.ssh.far_shell import FarShell, ShellLost
from gglib_adapters.runners.ssh.forwards import Forwards
from gglib_adapters.runners.ssh.openssh import OpenSsh, Step, complaint
from gglib_adapters.runners.ssh.places import control_socket
from gglib_adapters.runners.ssh.processes import LastWords, running
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

__all__ = ["FarMachine", "Link"]

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
#: How long the far machine may take for what it does at once.
_ANSWER_S = 15.0
#: A connection that held for so long was a good one.
_STEADY_S = 1.0
_GREETING = b"gglib\n"


@attrs.frozen
class FarMachine:
    """What the far machine says of itself when it is reached."""

    ticks_per_s: int
    data_dir: str
    line: str
    """Tells far.sh which shell and which sshd carried this connection."""


class Link:
    """One multiplexed connection. ``run`` makes it, makes it again, and ends it.

    Everybody who asks while it is being made waits for that; while it cannot be made, and the
    next attempt is not due, they are told why at once.
    """

    __slots__ = (
        "_clock",
        "_control",
        "_demand",
        "_error",
        "_has_work",
        "_machine",
        "_on_return",
        "_settings",
        "_settled",
        "_shell",
        "_site",
        "forwards",
        "times_made",
    )

    def __init__(
        self,
        settings: SshRunnerSettings,
        *,
        folder: Path,
        site: str,
        clock: Clock,
        on_return: Callable[[], Coroutine[Any, Any, None]],
        has_work: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._site = site
        self._on_return = on_return
        self._has_work = has_work
        self._control = control_socket(folder)
        self._shell: FarShell | None = None
        self._machine: FarMachine | None = None
        self._error: NodeUnreachable | None = None
        self._demand = anyio.Event()
        self._settled = anyio.Event()
        self.forwards = Forwards(folder)
        self.times_made = 0
        """Tells connections apart: what was seen through one may have changed by the next."""

    @property
    def is_up(self) -> bool:
        """Whether the far machine was there a moment ago."""
        return self._shell is not None

    @property
    def has_been_up(self) -> bool:
        """Whether the far machine was ever there: then it is known how fast it answers."""
        return self._machine is not None

    def wake(self) -> None:
        """Connect though nobody asks: there is work, of which ``has_work`` tells."""
        self._demand.set()

    async def machine(self) -> FarMachine:
        """Return what the far machine said of itself.

        Raises:
            NodeUnreachable: it cannot be reached.
        """
        await self._connected()
        assert self._machine is not None
        return self._machine

    async def ask(self, function: str, *arguments: str, timeout_s: float = _ANSWER_S) -> str:
        """Return what a function of ``far.sh`` prints. It is asked again when the line is cut.

        So it has to be one that can be called twice.

        Raises:
            NodeUnreachable: the machine cannot be reached, or does not answer.
        """
        return (await self.ask_bytes(function, *arguments, timeout_s=timeout_s)).decode(
            errors="surrogateescape"
        )

    async def ask_bytes(
        self, function: str, *arguments: str, timeout_s: float = _ANSWER_S
    ) -> bytes:
        """Return what a function prints, as it is. See ``ask``."""
        lost: ShellLost | None = None
        for _ in range(3):
            shell = await self._connected()
            try:
                answer = await shell.ask(function, *arguments, timeout_s=timeout_s)
            except ShellLost as error:
                lost = error
                if self._shell is shell:
                    # It hangs, or its end is just being noticed.
                    shell.give_up()
                    self._unsettle()
                continue
            return answer.output
        raise NodeUnreachable(
            self._settings.host,
            Step.SHELL,
            f"it was cut off again and again: {lost}",
            "is it short of memory, or its disk hanging?",
        )

    def leave(self) -> None:
        """Leave nothing here of a connection that has ended for good."""
        self._control.unlink(missing_ok=True)
        self.forwards.leave()

    async def lead(self, server_id: str, port: int) -> None:
        """Let a running server's socket lead to its port, as often as the line is cut."""
        await self.forwards.add(server_id, port)

    async def lead_again(self, server_id: str, port: int) -> None:
        """The same for a server that may have ended: then somebody else may have its port.

        Raises:
            NodeUnreachable: the machine cannot be asked.
        """
        if server_id in self.forwards.wanted or await self.ask("gglib_living", server_id):
            await self.lead(server_id, port)

    async def run(self) -> None:
        """Connect when somebody asks, and again when the line is cut, until cancelled."""
        try:
            await self._keep_up()
        finally:
            # Who still asks, as a stop does that nobody may cut short, would wait for ever.
            self._error = NodeUnreachable(
                self._settings.host, Step.CONNECT, "its runner is closed", "start gglib again"
            )
            self._settled.set()

    async def _keep_up(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            if not self._is_wanted:
                await self._demand.wait()
            began = self._clock.monotonic()
            self._error = await self._hold()
            if self._error is None and self._clock.monotonic() - began > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
                continue
            if self._error is not None:
                # Who asks during the pause is told at once.
                self._settled.set()
            if self._is_wanted:
                # An attempt that took long was a pause itself: who is back waits for no other.
                took_s = self._clock.monotonic() - began
                await self._clock.sleep(max(_FIRST_PAUSE_S, pause_s - took_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if self._error is not None:
                self._demand = anyio.Event()
                self._unsettle()

    @property
    def _is_wanted(self) -> bool:
        return bool(self.forwards.wanted) or self._has_work()

    async def _connected(self) -> FarShell:
        while True:
            if (shell := self._shell) is not None:
                return shell
            settled = self._settled
            self._demand.set()
            await settled.wait()
            # Neither, when it was lost before this was told that it had been made.
            if not self.is_up and self._error is not None:
                raise copy(self._error)

    def _unsettle(self) -> None:
        """Let those who ask from here on wait for the next attempt."""
        self._shell = None
        if self._settled.is_set():
            self._settled = anyio.Event()

    async def _hold(self) -> NodeUnreachable | None:
        """Connect; return why that cannot be done, or nothing when the connection is lost."""
        failure: NodeUnreachable | None = None
        try:
            async with anyio.create_task_group() as parts:
                try:
                    await self._carry(parts)
                finally:
                    self._unsettle()
                    self.forwards.close()
                    self._control.unlink(missing_ok=True)
                    parts.cancel_scope.cancel()
        except* Exception as group:
            failure = self._told(group)
        return failure

    def _told(self, group: BaseExceptionGroup[Exception]) -> NodeUnreachable:
        """Return what an attempt ended with: whatever that is, the next one may do better."""
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, NodeUnreachable):
            return error
        reason = f"gglib failed: {type(error).__name__}: {error}"
        fix = "please report it"
        if isinstance(error, OSError):
            reason = f"this machine refuses: {error.strerror or error}"
            fix = "is it short of open files, processes or memory (`ulimit -a`)?"
        return NodeUnreachable(self._settings.host, Step.CONNECT, reason, fix)

    async def _carry(self, parts: anyio.abc.TaskGroup) -> None:
        ssh = OpenSsh.found(self._settings)
        host, limit_s = self._settings.host, self._settings.connect_timeout_s
        async with running(ssh.master(self._control)) as master:
            words = LastWords()
            parts.start_soon(words.listen, master)
            try:
                with anyio.fail_after(limit_s + 1):
                    await _greet(master)
            except TimeoutError:
                raise NodeUnreachable(
                    host,
                    Step.CONNECT,
                    f"no answer within {limit_s:g} s",
                    f"does `ssh {host}` work from here?",
                ) from None
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                raise complaint(host, await words.all()) from None
            async with running(ssh.session(self._control)) as session:
                said = LastWords()
                parts.start_soon(said.listen, session)
                assert session.stdin is not None
                assert session.stdout is not None
                shell = FarShell(session.stdin, session.stdout)
                over = anyio.Event()
                for part in (shell.run, shell.abandoned.wait, master.wait):
                    parts.start_soon(_then, part, over)
                try:
                    await self._begin(ssh, shell)
                except ShellLost:
                    raise complaint(host, await said.all()) from None
                parts.start_soon(self._on_return)
                await over.wait()

    async def _begin(self, ssh: OpenSsh, shell: FarShell) -> None:
        await shell.teach()
        said = await shell.ask(
            "gglib_hello",
            self._settings.data_dir or "",
            self._site,
            # What was asked over a line that fell silent may arrive there even now: its shell
            # is ended before anything is asked of this one.
            self._machine.line if self._machine is not None else "",
            timeout_s=self._settings.connect_timeout_s,
        )
        self._machine = self._introduced(said.text)
        self.times_made += 1
        await self._give_up_ended(shell)
        await self.forwards.open(ssh, self._control)
        self._demand = anyio.Event()
        self._error = None
        self._shell = shell
        self._settled.set()

    async def _give_up_ended(self, shell: FarShell) -> None:
        """Leave the ports of servers that ended meanwhile to whoever has them now."""
        if wanted := set(self.forwards.wanted):
            limit_s = self._settings.connect_timeout_s
            said = await shell.ask("gglib_living", *wanted, timeout_s=limit_s)
            self.forwards.give_up(wanted.difference(said.text.split()))

    def _introduced(self, said: str) -> FarMachine:
        host = self._settings.host
        word, _, rest = said.partition(" ")
        match [word, *rest.split(" ", 2)]:
            case ["ready", ticks, line, data_dir] if ticks.isdecimal() and int(ticks):
                return FarMachine(int(ticks), data_dir, line)
        if word == "data":
            reason = f"its data directory cannot be made: {rest}"
            fix = "make room there, or choose another data_dir in the runner's section"
            raise NodeUnreachable(host, Step.SHELL, reason, fix)
        reason = f"it lacks {rest}" if word == "lacks" else f"its sh said {said[:200]!r}"
        raise NodeUnreachable(host, Step.SHELL, reason, "gglib needs Linux with a POSIX sh there")


async def _greet(master: anyio.abc.Process) -> None:
    """Return when what is said to the far machine comes back; login scripts may talk before."""
    assert master.stdin is not None
    assert master.stdout is not None
    await master.stdin.send(_GREETING)
    heard = b""
    while _GREETING not in heard:
        heard = heard[-len(_GREETING) :] + await master.stdout.receive()


async def _then(part: Callable[[], Awaitable[object]], over: anyio.Event) -> None:
    await part()
    over.set()
