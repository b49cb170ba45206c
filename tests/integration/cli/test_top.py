"""``gglib top``, as its users type it: on a terminal, in a pipe, while gateways come and go."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.commands import Home, gglib

from gglib.bootstrap import SystemClock
from gglib.testing import MockRunner
from gglib.testing.mocked_gateway import MockGateway, mock_gateway

DEADLINE_S = 20.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
LEAVES_THE_SCREEN = b"\x1b[?1049l"
SHOWS_THE_CURSOR = b"\x1b[?25h"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.make(tmp_path, TERM="xterm-256color")
    home.path.mkdir(mode=0o700)
    return home


@contextmanager
def gateway(home: Home) -> Iterator[MockGateway]:
    """Serve models alpha and beta."""
    runner = MockRunner(sockets=True, clock=SystemClock())
    with mock_gateway(home.path, runner) as served:
        for name in ("alpha", "beta"):
            served.add_model(name)
        yield served


def ask(served: MockGateway, model: str) -> None:
    """Have one answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    url = f"{served.base_url}/chat/completions"
    assert httpx.post(url, json=body, trust_env=False).status_code == 200


class Terminal:
    """``gglib top`` on a terminal of its own."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [gglib(), "top", "--interval-s", "0.1", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={
                name: value
                for name, value in home.environment.items()
                # Stronger than the terminal's own size.
                if name not in {"COLUMNS", "LINES"}
            },
            start_new_session=True,
        )
        self.said = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self.slave)
        os.close(self.master)

    def until(self, holds: Callable[[str], object]) -> str:
        """Read until the latest picture is such, and return it as text."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            # A picture begins where the cursor goes home; the last one may not be whole.
            pictures = self.said.split(b"\x1b[H")
            for picture in pictures[-2:]:
                text = _ESCAPES.sub("", picture.decode(errors="replace"))
                if holds(text):
                    return text
            if select.select([self.master], [], [], 0.2)[0]:
                self.said += os.read(self.master, 65536)
        raise AssertionError(f"never seen; last: {self.said[-4000:]!r}")

    def ended(self) -> int:
        """Return how it ended, with the terminal as it was found."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.02)[0]:
                self.said += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.said += os.read(self.master, 65536)
        status = self.process.wait(0)
        assert self.said.count(LEAVES_THE_SCREEN) == 1
        assert self.said.rindex(SHOWS_THE_CURSOR) > self.said.rindex(b"\x1b[?25l")
        assert termios.tcgetattr(self.slave) == self.before
        return status


def test_terminal_shows_servers_and_what_happens_until_q(home: Home) -> None:
    """A model that comes while it is watched is a row, and its coming an event."""
    with gateway(home) as served:
        ask(served, "alpha")
        with Terminal(home) as terminal:
            terminal.until(lambda text: "alpha" in text and "ready" in text)
            assert termios.tcgetattr(terminal.slave)[3] & termios.ECHO == 0
            ask(served, "beta")
            text = terminal.until(lambda text: "server.ready beta" in text)
            terminal.until(lambda text: re.search(r"beta +ready +\d+ +\d+ +[\d.]+ MiB", text))
            assert served.url in text
            os.write(terminal.master, b"xq")
            assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_signal_ends_it_and_leaves_the_terminal_as_it_was(
    home: Home, number: signal.Signals, status: int
) -> None:
    """Ctrl-C is one; no word is said of it."""
    with gateway(home), Terminal(home) as terminal:
        terminal.until(lambda text: "no model is in memory" in text)
        if number is signal.SIGINT:
            # As the terminal does for Ctrl-C, whose signals still work.
            assert termios.tcgetattr(terminal.slave)[3] & termios.ISIG
        terminal.process.send_signal(number)
        assert terminal.ended() == status
    assert terminal.said.endswith((LEAVES_THE_SCREEN, SHOWS_THE_CURSOR))


def test_gateway_that_goes_is_waited_for(home: Home) -> None:
    """It is said, and the next one is seen, wherever it listens."""
    with contextlib.ExitStack() as stack:
        with gateway(home) as served:
            ask(served, "alpha")
            terminal = stack.enter_context(Terminal(home))
            terminal.until(lambda text: "alpha" in text)
        text = terminal.until(lambda text: "no gateway runs on" in text)
        assert str(home.path) in text
        served = stack.enter_context(gateway(home))
        ask(served, "beta")
        text = terminal.until(lambda text: served.url in text and "beta" in text)
        assert "no gateway" not in text
        os.write(terminal.master, b"q")
        assert terminal.ended() == 0


def test_one_look_is_a_plain_listing_with_rates(home: Home) -> None:
    """Also without --once where nobody looks at a terminal."""
    with gateway(home) as served:
        ask(served, "alpha")
        for arguments in (("--once",), ()):
            done = home.run("top", *arguments, "--interval-s", "0.1")
            assert (done.returncode, done.stderr) == (0, "")
            assert f"gglib 0.1.0 at {served.url}" in done.stdout
            assert "0.0 requests/s" in done.stdout
            assert re.search(r"^alpha +ready +\d+ +\d+ ", done.stdout, re.MULTILINE)
            assert "\x1b" not in done.stdout


def test_one_look_as_json_is_one_object(home: Home) -> None:
    """With everything that a picture has."""
    with gateway(home) as served:
        ask(served, "alpha")
        told = home.json("top", "--once", "--interval-s", "0.1")
    assert told["gateway"]["address"] == served.url
    (server,) = told["servers"]
    assert (server["model"], server["state"], server["in_flight"]) == ("alpha", "ready", 0)
    assert [each["model"] for each in told["models"]] == ["alpha"]
    assert told["rates_over_s"] >= 0.1
    assert told["devices"][0]["needed_bytes"] == server["memory_bytes"]


def test_json_is_a_line_for_every_interval_that_survives_gateways(home: Home) -> None:
    """Events are in the line after them; a gateway that is gone is null."""
    with contextlib.ExitStack() as stack:
        with gateway(home) as served:
            process = subprocess.Popen(
                [gglib(), "top", "--json", "--interval-s", "0.1"],
                stdout=subprocess.PIPE,
                text=True,
                env=dict(home.environment),
            )
            stack.callback(process.wait, DEADLINE_S)
            stack.callback(process.terminate)
            assert process.stdout is not None
            lines: Iterator[dict[str, Any]] = map(json.loads, stack.enter_context(process.stdout))
            first = next(lines)
            assert (first["servers"], first["requests_per_s"], first["events"]) == ([], None, [])
            next(each for each in lines if each["rates_over_s"] > 0)
            ask(served, "alpha")
            found: list[str] = []
            while "server.ready" not in found:
                found += [event["event"] for event in next(lines)["events"]]
            assert "request.finished" not in found
        gone = next(each for each in lines if each["gateway"] is None)
        assert "no gateway runs on" in gone["trouble"]
        served = stack.enter_context(gateway(home))
        back = next(each for each in lines if each["gateway"] is not None)
        assert (back["gateway"]["address"], back["trouble"]) == (served.url, None)


@pytest.mark.parametrize("command", [("top",), ("top", "--once"), ("config", "reload")])
def test_without_a_gateway_it_says_where_it_looked(home: Home, command: tuple[str, ...]) -> None:
    """And how to get one; nothing was found."""
    done = home.run(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"gglib: no gateway runs on {home.path}; `gglib serve` starts")


def test_gateway_that_does_not_answer_is_not_taken_for_one_that_is_gone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs keeps its place."""
    monkeypatch.setattr("gglib.cli.top.watch._SILENCE_TIMEOUT_S", 0.2)
    with home.serve() as served:
        served.process.send_signal(signal.SIGSTOP)
        try:
            done = home.run("top", "--once")
        finally:
            served.process.send_signal(signal.SIGCONT)
    assert done.returncode == 1
    assert f"the gateway at {served.address} does not answer" in done.stderr


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "soon"])
def test_interval_that_makes_no_sense_is_refused(home: Home, interval: str) -> None:
    """Before anything is looked at."""
    done = home.run("top", "--interval-s", interval)
    assert done.returncode == 2
    assert "--interval-s" in done.stderr
