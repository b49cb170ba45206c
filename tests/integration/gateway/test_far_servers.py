"""A model on another machine is served like any other, and a line that is cut is told as that."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from support.commands import Home, gglib, stub_config
from support.far_machine import FarMachine, far_machine
from support.real_gateway import RealGateway, open_real_gateway, until

from gglib.domain.events import ServerStarted


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FarMachine]:
    """Give a machine behind an OpenSSH server."""
    (tmp_path / "box").mkdir()
    with far_machine(tmp_path / "box") as machine:
        yield machine


@pytest.fixture
def home(tmp_path: Path, machine: FarMachine) -> Home:
    """Give a data directory whose model ``far`` is served on the machine."""
    home = Home.make(tmp_path)
    section = "\n".join(f"{key} = {json.dumps(value)}" for key, value in machine.settings.items())
    runner = f'[runners.box]\nkind = "ssh"\n{section}\nstop_grace_s = 1\n'
    # A path that leads somewhere there, and nowhere here.
    model = 'path = "/proc/self/cwd/far.gguf"\nrunner = "box"\n'
    (machine.folder / "far").mkdir()
    (machine.folder / "far" / "far.gguf").write_bytes(b"the stub reads no model")
    home.configure(
        stub_config("far", extra=runner, tells_end=True).replace('path = "far.gguf"\n', model)
    )
    return home


@contextmanager
def following(home: Home, model: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``gglib logs -f`` for the block, which begins when it has printed a line."""
    with subprocess.Popen(
        [gglib(), "logs", model, "-f"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(home.environment),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process


async def is_answered(gateway: RealGateway) -> bool:
    """Return whether a request gets its answer now."""
    return (await gateway.chat("far")).status_code == 200


async def test_model_of_another_machine_is_served_beside_the_others(home: Home) -> None:
    """By the same address, streamed or not, and it takes none of the memory here."""
    async with open_real_gateway(home) as gateway:
        await gateway.ask("far")
        await gateway.ask("far", stream=True)
        resident = await gateway.resident("far")
        assert resident is not None
        assert resident["runner"] == "box"


async def test_stream_that_is_cut_says_so_and_the_next_request_finds_the_same_server(
    machine: FarMachine, home: Home
) -> None:
    """The server has not died, and is not said to have."""
    async with open_real_gateway(home) as gateway:
        body = {"model": "far", "stream": True, "pause_after": 1}
        async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            heard = ""
            async for text in answer.aiter_text():
                if not heard:
                    machine.cut()
                heard += text
        last = json.loads(heard.rstrip().rpartition("data: ")[2])
        assert "the connection to its machine was cut" in last["error"]["message"]
        await gateway.ask("far")
        assert len(gateway.of_kind(ServerStarted)) == 1


async def test_request_for_a_machine_that_is_away_is_told_and_one_after_its_return_is_answered(
    machine: FarMachine, home: Home
) -> None:
    """503, which machine, and that trying again helps; then the same server answers."""
    async with open_real_gateway(home) as gateway:
        await gateway.ask("far")
        machine.go_away()
        answer = await gateway.chat("far")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "node_unreachable"
        assert "box cannot be reached (connect)" in answer.json()["error"]["message"]
        assert answer.headers["x-should-retry"] == "true"
        machine.start()
        with anyio.fail_after(5):
            await until(lambda: is_answered(gateway))
        assert len(gateway.of_kind(ServerStarted)) == 1


async def test_model_cannot_start_on_a_machine_that_is_away(
    machine: FarMachine, home: Home
) -> None:
    """Its first request is told why, and another after the return starts it."""
    machine.go_away()
    async with open_real_gateway(home) as gateway:
        answer = await gateway.chat("far")
        assert answer.status_code == 503
        assert "box cannot be reached" in answer.json()["error"]["message"]
        machine.start()
        with anyio.fail_after(10):
            await until(lambda: is_answered(gateway))


async def test_machine_that_is_back_is_asked_at_once_however_often_it_was_asked_in_vain(
    machine: FarMachine, home: Home
) -> None:
    """What could not be reached is no failed start, which would be held against the model."""
    async with open_real_gateway(home) as gateway:
        await gateway.ask("far")
        assert (await gateway.admin("far", "unload")).status_code == 200
        machine.go_away()
        for _ in range(5):
            answer = await gateway.chat("far")
            assert answer.json()["error"]["code"] == "node_unreachable"
        machine.start()
        with anyio.fail_after(4):
            await until(lambda: is_answered(gateway))


def test_commands_work_while_a_machine_is_away(machine: FarMachine, home: Home) -> None:
    """``ps`` says so, and ``stop`` has the gateway end the server when it is back."""
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        machine.go_away()
        (shown,) = home.json("ps")
        assert (shown["state"], shown["runner"]) == ("away", "box")
        assert home.run("stop", "far").returncode == 0
        machine.start()
        until_s = time.monotonic() + 15
        while home.json("ps"):
            assert time.monotonic() < until_s


def test_budgets_of_its_machine_are_told_beside_those_of_this_one(home: Home) -> None:
    """By ``/admin/pool``, ``ps`` and ``top``: what the server needs is needed there, and seen."""
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (shown,) = home.json("ps")
        assert set(shown["memory_bytes"]) == {"box/cpu"}
        # An interpreter that does nothing has more than that.
        assert shown["memory_observed_bytes"] > 4 * 2**20
        assert " MiB, seen " in home.run("ps").stdout
        devices = {each["device"]: each for each in home.json("top", "--once")["devices"]}
        assert set(devices) >= {"cpu", "box/cpu"}
        assert devices["cpu"]["needed_bytes"] == 0
        assert devices["box/cpu"]["needed_bytes"] == shown["memory_bytes"]["box/cpu"]
        assert devices["box/cpu"]["budget_bytes"] > shown["memory_bytes"]["box/cpu"]


def test_this_machine_behind_ssh_has_one_budget_with_itself(home: Home) -> None:
    """It is known by its kernel; what a server behind ssh takes is not taken from others twice."""
    settings = home.path / "gglib.toml"
    settings.write_text(settings.read_text().replace("shares_memory = false", ""))
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (shown,) = home.json("ps")
        assert set(shown["memory_bytes"]) == {"cpu"}
        assert shown["memory_observed_bytes"] > 4 * 2**20
        devices = [each["device"] for each in home.json("top", "--once")["devices"]]
        assert "box/cpu" not in devices


def test_model_that_is_too_large_for_its_machine_is_refused_by_that_name(home: Home) -> None:
    """A budget by hand holds there, too."""
    settings = home.path / "gglib.toml"
    settings.write_text(settings.read_text() + '[routing.budgets]\n"box/cpu" = 1000\n')
    with home.serve() as served:
        answer = served.chat("far")
        assert answer.status_code == 503
        assert "box/cpu" in answer.json()["error"]["message"]


def test_commands_work_alike_for_a_server_elsewhere(home: Home) -> None:
    """``ps``, ``why``, ``logs`` and ``stop``, beside a gateway."""
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (shown,) = json.loads(home.run("ps", "--json").stdout)
        assert (shown["model"], shown["state"], shown["runner"]) == ("far", "ready", "box")
        assert "far is ready" in home.run("why", "far").stdout
        assert "ready at" in home.run("logs", "far").stdout
        with following(home, "far") as followed:
            assert home.run("stop", "far").returncode == 0
            lines, _ = followed.communicate(timeout=20)
        assert lines.splitlines()[-1] == "asked to stop"
        assert json.loads(home.run("ps", "--json").stdout) == []


def test_next_gateway_takes_over_what_a_killed_one_left_there(home: Home) -> None:
    """It is the same process, and answers without a start; the killed one's ssh ended with it."""
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (before,) = home.json("ps")
        served.process.kill()
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (after,) = home.json("ps")
        assert after["pid"] == before["pid"]
        assert home.run("stop", "far").returncode == 0


def test_what_a_killed_gateway_left_there_is_taken_over_when_its_machine_is_back(
    machine: FarMachine, home: Home
) -> None:
    """The next gateway begins while it is away, and starts nothing a second time."""
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (before,) = home.json("ps")
        served.process.kill()
    machine.go_away()
    with home.serve() as served:
        assert served.chat("far").status_code == 503
        machine.start()
        deadline = time.monotonic() + 15
        while served.chat("far").status_code != 200:
            assert time.monotonic() < deadline
        (after,) = home.json("ps")
        assert after["pid"] == before["pid"]
        assert home.run("stop", "far").returncode == 0


def test_servers_elsewhere_are_started_and_stopped_without_a_gateway(home: Home) -> None:
    """The registry leads to them, from one command to the next."""
    assert home.run("start", "far").returncode == 0
    (shown,) = json.loads(home.run("ps", "--json").stdout)
    assert shown["state"] == "ready"
    assert home.run("stop", "far").returncode == 0
    assert json.loads(home.run("ps", "--json").stdout) == []


def test_doctor_says_at_which_step_the_way_ends(machine: FarMachine, home: Home) -> None:
    """All that works before it, the step, and what to do; nothing behind it."""
    found = json.loads(home.run("doctor", "--runner", "box", "--json").stdout)
    states = {each["subject"]: each["state"] for each in found}
    assert list(states) == [
        *("resolve", "connect", "host key", "auth", "shell", "engine", "model file", "forward")
    ]
    assert states.pop("engine") == "broken"  # the stub is not found by engine_path
    assert set(states.values()) == {"ok"}
    (machine.folder / "far" / "far.gguf").unlink()
    (machine.folder / "sshd_config").write_text(
        (machine.folder / "sshd_config").read_text() + "AllowTcpForwarding no\n"
    )
    machine.go_away()
    machine.start()
    found = json.loads(home.run("doctor", "--runner", "box", "--json").stdout)
    broken = {each["subject"]: each["fix"] for each in found if each["state"] == "broken"}
    assert set(broken) == {"engine", "model file", "forward"}
    assert "AllowTcpForwarding" in broken["forward"]
    (machine.folder / "authorized_keys").write_text("")
    done = home.run("doctor", "--runner", "box")
    assert done.returncode == 1
    assert "!!  auth" in done.stdout
    assert "ssh-copy-id box" in done.stdout
    assert "shell" not in done.stdout.replace("sh-copy", "")
