"""A model that two machines can serve, behind real OpenSSH: one of them goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from support.commands import Home, stub_config
from support.far_machine import FarMachine, far_machine
from support.real_gateway import RealGateway, open_real_gateway, until


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, FarMachine]]:
    """Give two machines, each behind an OpenSSH server of its own."""
    with ExitStack() as stack:
        found = {}
        for host in ("box", "attic"):
            folder = tmp_path / host
            folder.mkdir()
            found[host] = stack.enter_context(far_machine(folder, host=host))
            (folder / "far").mkdir()
            (folder / "far" / "far.gguf").write_bytes(b"the stub reads no model")
        yield found


@pytest.fixture
def home(tmp_path: Path, machines: dict[str, FarMachine]) -> Home:
    """Give a data directory whose model ``far`` is served on one of them."""
    home = Home.make(tmp_path)
    runners = ""
    for name, machine in machines.items():
        lines = [f"{key} = {json.dumps(value)}" for key, value in machine.settings.items()]
        runners += "\n".join([f"[runners.{name}]", 'kind = "ssh"', "stop_grace_s = 1", *lines, ""])
    # A path that leads somewhere there, and nowhere here.
    model = 'path = "/proc/self/cwd/far.gguf"\nrunner = ["box", "attic"]\n'
    runners += "[pool]\nhealth_check_interval_s = 0.2\n"
    home.configure(stub_config("far", extra=runners).replace('path = "far.gguf"\n', model))
    return home


@pytest.fixture
async def gateway(home: Home) -> AsyncIterator[RealGateway]:
    """Give a gateway over both."""
    async with open_real_gateway(home) as gateway:
        yield gateway


async def servers(gateway: RealGateway) -> dict[str, Any]:
    """Return what runs, by runner: phase, and process."""
    running = (await gateway.client.get("/running")).json()["running"]
    return {each["runner"]: (each["state"], each["pid"]) for each in running}


async def test_machine_that_goes_away_while_it_streams_is_stood_in_for_by_the_other(
    machines: dict[str, FarMachine], gateway: RealGateway
) -> None:
    """The stream is told so, the next request is answered there; the server is not called dead.

    When its machine is back the server has been replaced, so it goes, and nothing is left of it.
    """
    body = {"model": "far", "stream": True, "pause_after": 1}
    async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        heard = ""
        async for text in answer.aiter_text():
            if not heard:
                _, pid = (await servers(gateway))["box"]
                machines["box"].go_away()
            heard += text
    last = json.loads(heard.rstrip().rpartition("data: ")[2])
    assert "the connection to its machine was cut" in last["error"]["message"]
    with anyio.fail_after(5):
        await gateway.ask("far")
    found = await servers(gateway)
    assert (found["box"], found["attic"][0]) == (("away", pid), "ready")
    assert psutil.pid_exists(pid)

    machines["box"].start()

    async def box_is_empty() -> bool:
        return set(await servers(gateway)) == {"attic"} and not psutil.pid_exists(pid)

    with anyio.fail_after(15):
        await until(box_is_empty)
    await gateway.ask("far")
    assert gateway.starts == ["far", "far"]


async def test_server_of_a_machine_that_was_away_for_a_while_serves_again(
    machines: dict[str, FarMachine], gateway: RealGateway
) -> None:
    """Nobody had asked for its model, so that no other was started."""
    await gateway.ask("far")
    machines["box"].go_away()

    async def is_(phase: str) -> bool:
        return (await servers(gateway))["box"][0] == phase

    with anyio.fail_after(10):
        await until(lambda: is_("away"))
        machines["box"].start()
        await until(lambda: is_("ready"))
    await gateway.ask("far")
    assert gateway.starts == ["far"]


async def test_first_request_is_answered_by_the_machine_that_is_there(
    machines: dict[str, FarMachine], gateway: RealGateway
) -> None:
    """And when neither is, it is told why of each; the first that is back answers soon."""
    for machine in machines.values():
        machine.go_away()
    answer = await gateway.chat("far")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_started"
    assert "on box: box cannot be reached" in answer.json()["error"]["message"]
    assert "on attic: attic cannot be reached" in answer.json()["error"]["message"]
    machines["attic"].start()

    async def is_answered() -> bool:
        return (await gateway.chat("far")).status_code == 200

    with anyio.fail_after(5):
        await until(is_answered)
    assert set(await servers(gateway)) == {"attic"}


def test_commands_tell_which_machine_serves_a_model(
    machines: dict[str, FarMachine], home: Home
) -> None:
    """With a gateway, after one that was killed, and without any."""
    machines["box"].go_away()
    fits = home.json("model", "fit", "far")["runners"]
    assert [(each["runner"], "cannot be reached" in each["line"]) for each in fits] == [
        ("box", True),
        ("attic", False),
    ]
    assert home.run("start", "far").returncode == 0
    (shown,) = home.json("ps")
    assert (shown["runner"], shown["state"]) == ("attic", "ready")
    assert home.run("stop", "far").returncode == 0
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (before,) = home.json("ps")
        assert before["runner"] == "attic"
        assert "on box: no server; box cannot be reached" in home.run("why", "far").stdout
        served.process.kill()
    with home.serve() as served:
        assert served.chat("far").status_code == 200
        (after,) = home.json("ps")
        assert after["pid"] == before["pid"]
        assert home.run("stop", "far").returncode == 0
