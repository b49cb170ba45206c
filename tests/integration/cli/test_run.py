"""``gglib run``, as its users type it: from a file to an answer."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home, gglib, stub_config
from support.extras import require_embedded_engine

from gglib.services.demo.tiny_gguf import tiny_gguf

SHORT = ("--set", "max_tokens=8")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A data directory with a model that the stub serves, and that talks for a long time."""
    home = Home.make(tmp_path)
    home.configure(stub_config("a", chunks=100_000), "a")
    return home


def run(home: Home, *arguments: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``gglib run``, with ``said`` piped in."""
    return subprocess.run(
        [gglib(), "run", *arguments],
        input=said,
        stdin=subprocess.DEVNULL if said is None else None,
        capture_output=True,
        text=True,
        env=dict(home.environment),
        timeout=50,
        check=False,
    )


@pytest.mark.engine
def test_file_answers_where_nothing_is_configured(tmp_path: Path) -> None:
    """It is added and served for the answer; afterwards nothing runs, and its name is known."""
    require_embedded_engine()
    home = Home.make(tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf())
    done = run(home, str(tmp_path / "tiny.gguf"), "-p", "hi", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr.startswith("added tiny (")
    again = run(home, "tiny", *SHORT, said="hi")
    assert again.returncode == 0, again.stderr
    assert "added" not in again.stderr
    assert home.json("ps") == []


def test_what_is_piped_in_is_part_of_the_question(home: Home) -> None:
    """As in ``cat notes.txt | gglib run NAME -p 'What is this?'``."""
    home.configure(stub_config("a", record=str(home.path / "asked")), "a")
    done = run(home, "a", "-p", "What is this?", "--system", "Be brief.", said="some notes\n")
    assert done.returncode == 0, done.stderr
    asked = [json.loads(line) for line in (home.path / "asked").read_text().splitlines()]
    assert [each["content"] for each in json.loads(asked[-1]["body"])["messages"]] == [
        "Be brief.",
        "What is this?\n\nsome notes",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("a",), 2, "nothing was asked"),
        (("b", "-p", "hi"), 3, "no model named 'b'"),
        (("nowhere.gguf", "-p", "hi"), 3, "nowhere.gguf"),
        (("a", "-p", "hi", "--set", "temprature=1"), 2, "did you mean temperature?"),
        (("a", "-p", "hi", "--set", "top_p=2"), 2, "top_p is 2"),
    ],
)
def test_what_cannot_be_done_is_said(
    home: Home, arguments: tuple[str, ...], status: int, why: str
) -> None:
    """In one line, before anything is started."""
    done = run(home, *arguments)
    assert done.returncode == status
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_running_gateway_serves_it(home: Home) -> None:
    """Then the model stays in the gateway's memory; and its context is the gateway's to say."""
    home.configure(stub_config("a"), "a")
    with home.serve():
        done = run(home, "a", "-p", "hi")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        (running,) = home.json("ps")
        assert running["model"] == "a"
        assert run(home, "a", "-p", "hi", "--context-size", "512").returncode == 2


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [gglib(), "run", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**home.environment, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def until(self, pattern: str, *, interrupts: bool = False) -> str:
        """Read until ``pattern`` was shown, and return what was shown since the last one.

        ``interrupts``: press Ctrl-C, and again every few seconds, as people do: Python drops one
        that comes while it collects garbage, and does not look at one that comes between
        readline's prompt and its wait for a key.
        """
        pressed_at = -math.inf
        while (found := re.search(pattern, self.shown)) is None:
            if interrupts and time.monotonic() > pressed_at + 5:
                self.interrupt()
                pressed_at = time.monotonic()
            if interrupts and not select.select([self._ours], [], [], 5)[0]:
                continue
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                data = b""
            assert data, f"no {pattern} in {self.shown[-2000:]!r}"
            self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._ours, text.encode() + b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.kill(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        """Close its window, as a user does: nothing is left behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)
        # Nobody reads what it still says.
        os.close(self._ours)
        self.process.wait(20)


@pytest.fixture
def terminal(home: Home) -> Iterator[Terminal]:
    """A chat with the model that talks for a long time."""
    terminal = Terminal(home, "a")
    try:
        terminal.until(">>> ")
        yield terminal
    finally:
        terminal.close()


def test_chat_goes_on_after_an_answer_is_stopped(home: Home, terminal: Terminal) -> None:
    """Ctrl-C stops an answer, not the chat; ``/bye`` ends it, and the server with it."""
    terminal.type("hi")
    terminal.until("hi\n.*\\w")
    terminal.until("stopped\n.*>>> ", interrupts=True)
    terminal.until("/bye or Ctrl-D ends the chat\n.*>>> ", interrupts=True)
    terminal.type("/bye")
    assert terminal.process.wait(20) == 0
    assert home.json("ps") == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_chat_that_is_ended_from_outside_leaves_no_server(
    home: Home, terminal: Terminal, number: signal.Signals
) -> None:
    """As when its window is closed, in the midst of an answer."""
    terminal.type("hi")
    terminal.until("hi\n.*\\w")
    terminal.process.send_signal(number)
    assert terminal.process.wait(20) == 128 + number
    assert home.json("ps") == []


def test_commands_of_a_chat_do_what_help_says(terminal: Terminal, tmp_path: Path) -> None:
    """What is typed wrongly is answered with what would be right."""
    for typed, shown in [
        ("/help", "Ctrl-C +stops an answer"),
        ("/shwo", "did you mean /show?"),
        ("/set temperature=0.2", ""),
        ("/set tempature=1", "did you mean temperature?"),
        ("/set top_p=7", "top_p is 7; expected"),
        ("/system Be brief.", ""),
        ("/undo", "nothing was said yet"),
        ("/retry", "nothing was said yet"),
        ("/save", "say where to"),
        (f"/save {tmp_path}/none/x", "No such file"),
        (f"/save {tmp_path}/said.json", "wrote "),
        ("/show", "temperature = 0.2\nsystem: Be brief.\n0 messages"),
        ("/clear", ""),
    ]:
        terminal.type(typed)
        terminal.until(f"{shown}[^>]*>>> ")
    saved = json.loads((tmp_path / "said.json").read_text())
    assert saved == [{"role": "system", "content": "Be brief."}]


def test_text_of_several_lines_is_one_question(terminal: Terminal, tmp_path: Path) -> None:
    """Between three quotes."""
    for line in ('"""first', "second", 'third"""'):
        terminal.type(line)
    terminal.until('third"""\n.*\\w')
    terminal.until("stopped", interrupts=True)
    terminal.type(f"/save {tmp_path}/said.json")
    terminal.until("wrote ")
    saved = json.loads((tmp_path / "said.json").read_text())
    assert saved[0]["content"] == "first\nsecond\nthird"
