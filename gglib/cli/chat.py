"""A chat in the terminal: questions are typed, answers appear as they are made."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from gglib.cli.conversation import Conversation
from gglib.cli.output import printable, tell
from gglib.cli.sampling import with_parameter
from gglib.errors import GglibError

__all__ = ["Chat", "write_answer"]

_PROMPT = ">>> "
_MORE = "... "
_QUOTES = '"""'
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
#: What would move the cursor, or worse, if a model wrote it.
_CONTROLS = {code: "·" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def write_answer(conversation: Conversation, question: str, *, is_terminal: bool) -> None:
    """Print a question's answer, piece by piece; reasoning only to a terminal, and dim.

    Raises:
        ServerError, GatewayUnreachable: as ``Conversation.ask``.
    """
    write = sys.stdout.write
    thinks = False
    pieces = conversation.ask(question)
    with contextlib.closing(pieces):  # type: ignore[type-var]
        try:
            for piece in pieces:
                if piece.is_reasoning and not is_terminal:
                    continue
                if piece.is_reasoning != thinks:
                    thinks = piece.is_reasoning
                    write(_DIM if thinks else f"{_PLAIN}\n\n")
                write(piece.text.translate(_CONTROLS) if is_terminal else piece.text)
                sys.stdout.flush()
        finally:
            if thinks:
                write(_PLAIN)
            write("\n")
            sys.stdout.flush()


class Chat:
    """Reads lines until there are no more, or ``/bye``."""

    def __init__(self, conversation: Conversation, *, facts: Callable[[], str]) -> None:
        """``facts``: what ``/show`` tells of the model."""
        self._conversation = conversation
        self._facts = facts
        self._over = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/bye": self._bye,
            "/clear": self._clear,
            "/retry": self._retry,
            "/save": self._save,
            "/set": self._set,
            "/show": self._show,
            "/system": self._system,
            "/undo": self._undo,
        }

    def run(self) -> None:
        """Talk until the end."""
        while not self._over:
            try:
                said = _read()
            except EOFError:
                sys.stdout.write("\n")
                return
            except KeyboardInterrupt:
                sys.stdout.write("\n")
                tell("/bye or Ctrl-D ends the chat")
                continue
            if said.startswith("/"):
                self._obey(said)
            elif said.strip():
                self._ask(said)

    def _ask(self, question: str) -> None:
        """Print an answer; Ctrl-C stops it, and the chat goes on."""
        try:
            write_answer(self._conversation, question, is_terminal=sys.stdout.isatty())
        except KeyboardInterrupt:
            tell("stopped")
        except GglibError as error:
            tell(printable(f"gglib: {error}"))

    def _obey(self, said: str) -> None:
        name, _, rest = said.partition(" ")
        name = {"/exit": "/bye", "/quit": "/bye", "/?": "/help"}.get(name, name)
        command = self._commands.get(name)
        if command is None:
            near = get_close_matches(name, self._commands, n=1)
            tell(f"no command {name}; " + (f"did you mean {near[0]}?" if near else "/help"))
            return
        try:
            command(rest.strip())
        except (GglibError, OSError) as error:
            tell(printable(f"gglib: {error}"))

    # Commands

    def _help(self, _rest: str) -> None:
        tell(
            "/set KEY=VALUE  a sampling parameter, such as temperature=0.2; KEY= unsets it\n"
            "/system TEXT    what the model is told first; nothing: no longer\n"
            "/retry          the latest question once more\n"
            "/undo           forget the latest question and its answer\n"
            "/clear          forget everything that was said\n"
            "/save FILE      write what was said, as JSON\n"
            "/show           the model, the parameters, the speed of the latest answer\n"
            '"""             begins and ends a text of several lines\n'
            "Ctrl-C          stops an answer\n"
            "/bye, Ctrl-D    end"
        )

    def _bye(self, _rest: str) -> None:
        self._over = True

    def _clear(self, _rest: str) -> None:
        self._conversation.messages.clear()

    def _undo(self, _rest: str) -> None:
        if self._conversation.undo() is None:
            tell("nothing was said yet")

    def _retry(self, _rest: str) -> None:
        question = self._conversation.undo()
        if question is None:
            tell("nothing was said yet")
        else:
            self._ask(question)

    def _system(self, rest: str) -> None:
        self._conversation.system = rest or None

    def _save(self, rest: str) -> None:
        if not rest:
            tell("say where to: /save FILE")
            return
        path = Path(rest).expanduser()
        system = self._conversation.system
        first = [{"role": "system", "content": system}] if system else []
        messages = [*first, *self._conversation.messages]
        path.write_text(json.dumps(messages, indent=2, ensure_ascii=False) + "\n", "utf-8")
        tell(f"wrote {path}")

    def _set(self, rest: str) -> None:
        self._conversation.inference = with_parameter(self._conversation.inference, rest)

    def _show(self, _rest: str) -> None:
        conversation = self._conversation
        tell(self._facts())
        for key, value in conversation.inference.set_fields().items():
            tell(f"{key} = {value}")
        if conversation.system:
            tell(f"system: {conversation.system}")
        tell(f"{len(conversation.messages)} messages")
        speed = conversation.timings.get("predicted_per_second")
        if isinstance(speed, int | float):
            tell(f"{speed:.1f} tokens/s")


def _read() -> str:
    """Return what is typed next, of several lines if it begins with three quotes."""
    said = input(_PROMPT)
    if not said.startswith(_QUOTES):
        return said
    return "\n".join(_until_quotes(said.removeprefix(_QUOTES)))


def _until_quotes(line: str) -> Iterator[str]:
    while not line.rstrip().endswith(_QUOTES):
        yield line
        line = input(_MORE)
    yield line.rstrip().removesuffix(_QUOTES)
