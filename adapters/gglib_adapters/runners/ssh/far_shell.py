"""One ``sh`` on the far machine that answers many short questions, each in a round trip."""

from __future__ import annotations

import secrets
import shlex
from collections import deque
from pathlib import Path

import anyio
import attrs
from anyio.abc import ByteReceiveStream, ByteSendStream

__all__ = ["Answer", "FarShell", "ShellLost"]

_SCRIPTS = tuple(
    Path(__file__).with_name(name) for name in ("far.sh", "far_machine.sh", "far_digest.sh")
)

#: More than this of an unfinished answer is none of far.sh's.
_LIMIT_BYTES = 16 * 1024 * 1024


class ShellLost(Exception):
    """The shell is gone. Whether it still did what it was asked is not known."""


@attrs.frozen
class Answer:
    """What a function of ``far.sh`` printed."""

    output: bytes

    @property
    def text(self) -> str:
        """The output without its last line's end."""
        return self.output.decode(errors="surrogateescape").removesuffix("\n")


@attrs.define(eq=False)
class _Question:
    answered: anyio.Event = attrs.field(factory=anyio.Event)
    output: bytes | None = None


class FarShell:
    """Sends questions and hands out the answers, in their order.

    Who stops waiting for an answer disturbs nobody. ``run`` reads until the shell ends.
    """

    __slots__ = (
        "_buffer",
        "_incoming",
        "_lost",
        "_mark",
        "_outgoing",
        "_questions",
        "_sending",
        "abandoned",
    )

    def __init__(self, outgoing: ByteSendStream, incoming: ByteReceiveStream) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._mark = secrets.token_hex(16)
        self._questions: deque[_Question] = deque()
        self._sending = anyio.Lock()
        self._buffer = bytearray()
        self._lost = False
        self.abandoned = anyio.Event()
        """Set when nobody wants it any more: whoever runs it ends it."""

    def give_up(self) -> None:
        """Let the shell be ended, with all that was asked of it."""
        self.abandoned.set()

    async def teach(self) -> None:
        """Let the shell read ``far.sh`` and what goes on from there.

        Raises:
            ShellLost: it ended.
        """
        for path in _SCRIPTS:
            await self._send(await anyio.to_thread.run_sync(path.read_bytes), None)

    async def ask(self, function: str, *arguments: str, timeout_s: float) -> Answer:
        """Return what ``function`` prints, called with ``arguments`` as they are.

        Raises:
            ShellLost: the shell ended, or did not answer within ``timeout_s``.
            ValueError: an argument holds a NUL, which no argument can.
        """
        words = [function, *map(quoted, arguments)]
        # Its output ends with a line that nobody can foresee.
        line = f"{' '.join(words)}; printf '\\036%s\\036\\n' {self._mark}\n"
        question = _Question()
        await self._send(line.encode(errors="surrogateescape"), question)
        with anyio.move_on_after(timeout_s):
            await question.answered.wait()
        if question.output is None:
            raise ShellLost(f"no answer within {timeout_s:g} s" if not self._lost else "it ended")
        return Answer(question.output)

    async def run(self) -> None:
        """Read answers until the shell ends."""
        end = b"\x1e" + self._mark.encode() + b"\x1e\n"
        searched = 0
        try:
            while len(self._buffer) < _LIMIT_BYTES:
                self._buffer += await self._incoming.receive()
                while (at := self._buffer.find(end, max(0, searched - len(end)))) >= 0:
                    self._settle(bytes(self._buffer[:at]))
                    del self._buffer[: at + len(end)]
                    searched = 0
                searched = len(self._buffer)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            self._lost = True
            for question in self._questions:
                question.answered.set()

    def _settle(self, output: bytes) -> None:
        if self._questions:
            question = self._questions.popleft()
            question.output = output
            question.answered.set()

    async def _send(self, data: bytes, question: _Question | None) -> None:
        async with self._sending:
            if self._lost:
                raise ShellLost("it ended")
            if question is not None:
                self._questions.append(question)
            # Half a line would be the beginning of the next one.
            with anyio.CancelScope(shield=True):
                try:
                    await self._outgoing.send(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                    raise ShellLost("it ended") from error


def quoted(argument: str) -> str:
    """Return ``argument`` as one word of any POSIX shell.

    Raises:
        ValueError: it holds a NUL.
    """
    if "\0" in argument:
        raise ValueError("an argument cannot hold a NUL")
    return shlex.quote(argument)
