"""gglib from Python: real servers of the stub, in this process's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest
from support.commands import stub_config
from support.servers import lives, port_answers, processes_of

import gglib
from gglib.errors import (
    ConfigurationError,
    EngineCannot,
    EngineNotFound,
    InvalidValue,
    ModelNotFound,
    StartFailed,
)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's settings counts here."""
    for name in os.environ:
        if name.startswith("GGLIB_"):
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data directory with two models of the stub, and one that never starts."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    broken = '[engines.broken]\ncommand = ["false", "{port}"]\n'
    broken += '[models.broken]\npath = "a.gguf"\nengine = "broken"\n'
    (path / "gglib.toml").write_text(stub_config("alpha", "beta") + broken)
    for name in ("alpha", "beta", "a"):
        (path / f"{name}.gguf").touch()
    return path


async def model_at(base_url: str) -> str:
    """Ask a server which model it serves."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{base_url}/v1/models")
    name: str = answer.json()["data"][0]["id"]
    return name


async def test_server_is_ready_in_the_block_and_gone_after_it(home: Path) -> None:
    """By name or by model, with the settings that were asked for."""
    async with gglib.open(home) as lib:
        model = (await lib.models.resolve("alpha")).model
        for wanted in ("alpha", model):
            async with lib.serve(wanted, environment={"A": "1"}) as server:
                assert await model_at(server.base_url) == "alpha"
                assert server.record.config.environment == {"A": "1"}
                pid, port = server.handle.pid, server.handle.port
                assert pid is not None
                assert lives(pid)
            assert not lives(pid)
            assert not port_answers(port)
    assert processes_of(home) == []


async def test_error_in_the_block_stops_the_server_and_comes_out_as_it_is(home: Path) -> None:
    """No group around it: ``except ValueError`` is what people write."""
    error = ValueError("the user's own")
    with pytest.raises(ValueError, match="the user's own") as caught:
        async with gglib.open(home) as lib, lib.serve("alpha") as server:
            raise error
    assert caught.value is error
    assert server.handle.pid is not None
    assert not lives(server.handle.pid)


async def test_cancelled_block_stops_its_servers(home: Path) -> None:
    """A timeout leaves nothing behind."""
    with anyio.CancelScope() as scope:
        async with gglib.open(home) as lib, lib.serve("alpha") as server:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert server.handle.pid is not None
    assert not lives(server.handle.pid)


async def test_two_servers_run_at_once(home: Path) -> None:
    """Each call has a server of its own, of the same model, too."""
    async with gglib.open(home) as lib:
        async with lib.serve("alpha") as first, lib.serve("beta") as second:
            async with lib.serve("alpha") as third:
                assert await model_at(first.base_url) == "alpha"
                assert await model_at(second.base_url) == "beta"
                assert await model_at(third.base_url) == "alpha"
                servers = {server.handle.pid for server in (first, second, third)}
                assert len(servers) == 3
            assert await model_at(first.base_url) == "alpha"
    assert processes_of(home) == []


async def test_lease_swaps_the_model_in(home: Path) -> None:
    """It stays after the block, until another needs its place or the library closes."""
    with (home / "gglib.toml").open("a") as settings:
        settings.write('[routing]\nplanner = "exclusive"\n')
    evicted: list[tuple[str, str, str]] = []
    async with gglib.open(home) as lib:
        lib.on_evicted(lambda *eviction: evicted.append(eviction))
        async with lib.lease("alpha") as lease:
            assert await model_at(lease.server.base_url) == "alpha"
            alpha = lease.server.handle.pid
        async with lib.lease("alpha") as lease:
            assert lease.server.handle.pid == alpha
        async with lib.lease("beta") as lease:
            assert await model_at(lease.server.base_url) == "beta"
            assert alpha is not None
            assert not lives(alpha)
    assert processes_of(home) == []
    assert evicted == [("alpha", "cpu", "swap"), ("beta", "cpu", "shutdown")]


async def test_model_is_added_and_found(home: Path, tmp_path: Path) -> None:
    """The next who opens finds it, too."""
    from gglib.services.demo.tiny_gguf import tiny_gguf

    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf())
    async with gglib.open(home) as lib:
        added = await lib.models.add(path)
    async with gglib.open(str(home)) as lib:
        assert (await lib.models.resolve("tiny")).model == added


async def test_what_cannot_be_served_is_an_error_and_nothing_runs(home: Path) -> None:
    """Each is of the class that is documented; the library goes on."""
    async with gglib.open(home) as lib:
        with pytest.raises(ModelNotFound) as unknown:
            async with lib.serve("alpa"):
                pass
        assert unknown.value.close_names[0] == "alpha"
        with pytest.raises(ModelNotFound):
            async with lib.lease("nobody"):
                pass
        with pytest.raises(InvalidValue, match="context_size"):
            async with lib.serve("alpha", contxt_size=512):
                pass
        with pytest.raises(InvalidValue, match="context_size is -1"):
            async with lib.serve("alpha", context_size=-1):
                pass
        with pytest.raises(EngineCannot, match="context_size = 512"):
            async with lib.serve("alpha", context_size=512):
                pass
        with pytest.raises(EngineNotFound, match="warp"):
            async with lib.serve("alpha", engine="warp"):
                pass
        for hold in (lib.serve("broken"), lib.lease("broken")):
            with pytest.raises(StartFailed, match="status 1"):
                async with hold:
                    pass
        assert processes_of(home) == []
        async with lib.serve("alpha") as server:
            assert await model_at(server.base_url) == "alpha"


async def test_wrong_setting_is_told_at_once(home: Path) -> None:
    """Before anything is opened."""
    (home / "gglib.toml").write_text("[gatewy]\n")
    with pytest.raises(ConfigurationError, match="gatewy"):
        async with gglib.open(home):
            pass
    other = home / "other.toml"
    other.write_text('[models.gamma]\npath = "a.gguf"\n')
    async with gglib.open(home, config=other) as lib:
        assert [model.name for model in await lib.models.list()] == ["gamma"]


KILLED = """
import sys, anyio, gglib
async def main():
    async with gglib.open(sys.argv[1]) as lib, lib.serve("alpha") as server:
        print(server.handle.pid, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def test_what_a_killed_process_left_is_stopped_by_the_next(home: Path) -> None:
    """And what a living one has is let alone."""

    async def look() -> None:
        async with gglib.open(home):
            pass

    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
        anyio.run(look)
        assert lives(left)
        process.kill()
        process.wait()
        assert lives(left)
        anyio.run(look)
        assert not lives(left)
