"""Engines that die, that do not start, and clients that do not read: real servers, real gateway."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from support.commands import Home, stub_config, stub_section
from support.real_gateway import RealGateway, open_real_gateway, until

from gglib.domain.events import ServerStopped


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


def places(count: int) -> str:
    """Return the settings for so many models in memory."""
    return f'[routing]\nplanner = "count"\n[pool]\nmax_size = {count}\n'


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the error object of an answer."""
    error: dict[str, Any] = answer.json()["error"]
    return error


async def test_reader_that_stalls_loses_its_lease_and_another_model_is_swapped_in(
    home: Home,
) -> None:
    """Only then, and the stalled answer does not end as if it were whole."""
    limits = "[gateway]\nstall_timeout_s = 0.3\n"
    home.configure(stub_config("a", "b", extra=places(1) + limits, chunks=10**9), "a", "b")
    async with open_real_gateway(home) as gateway:
        url = httpx.URL(gateway.address)
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await anyio.to_thread.run_sync(reader.connect, (url.host, url.port))
            body = json.dumps({"model": "a", "stream": True}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}\r\n"
            reader.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

            async def is_answered() -> bool:
                resident = await gateway.resident("a")
                return resident is not None and resident["in_flight"] == 1

            await until(is_answered)
            await gateway.ask("b")
            assert await gateway.residents() == {"b"}
            assert not await anyio.to_thread.run_sync(ends_whole, reader)
    assert gateway.starts == ["a", "b"]


def ends_whole(reader: socket.socket) -> bool:
    """Read an answer to its end and return whether it is one."""
    last = b""
    reader.settimeout(10)
    try:
        while piece := reader.recv(1 << 20):
            last = (last + piece)[-16:]
    except ConnectionResetError:
        return False
    return last.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("warm", [False, True])
async def test_prompt_that_kills_two_engines_is_refused_and_costs_no_third(
    home: Home, warm: bool
) -> None:
    """On a fresh connection or a used one; a neighbour's clients notice nothing."""
    home.configure(stub_config("a", "b", extra=places(2)), "a", "b")
    async with open_real_gateway(home) as gateway:
        await gateway.ask("b")
        if warm:
            await gateway.ask("a")
        over = anyio.Event()

        async def neighbour() -> None:
            while not over.is_set():
                await gateway.ask("b", takes_s=0.05)

        async with anyio.create_task_group() as clients:
            clients.start_soon(neighbour)
            answer = await gateway.chat("a", exit_status=3)
            assert gateway.starts == ["b", "a", "a"]
            over.set()
        assert (answer.status_code, error_of(answer)["code"]) == (502, "engine_died")
        # What is no poison is served, by a third.
        await gateway.ask("a")
    assert gateway.starts == ["b", "a", "a", "a"]


async def test_start_that_is_out_of_memory_takes_the_place_of_the_idle_one_least_used(
    home: Home,
) -> None:
    """Two fit although the settings say three: the third is tried once more, and is served."""
    rations = [str(home.path / f"ration-{number}") for number in range(2)]
    home.configure(stub_config("a", "b", "c", extra=places(3), rations=rations), "a", "b", "c")
    async with open_real_gateway(home) as gateway:
        for name in ("a", "b", "a"):
            await gateway.ask(name)
        await gateway.ask("c")
        assert gateway.starts == ["a", "b", "c", "c"]
        assert await gateway.residents() == {"a", "c"}
        assert [event.model_name for event in gateway.of_kind(ServerStopped)] == ["b"]


async def test_start_that_is_out_of_memory_again_is_told(home: Home) -> None:
    """One eviction, one more try, and then the engine's own words."""
    ration = home.path / "ration"
    home.configure(
        places(2) + stub_section("stub", "a") + stub_section("big", "b", rations=[str(ration)]),
        *("a", "b"),
    )
    with ration.open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        async with open_real_gateway(home) as gateway:
            await gateway.ask("a")
            answer = await gateway.chat("b")
            assert (answer.status_code, error_of(answer)["code"]) == (503, "start_failed")
            assert "out of memory" in error_of(answer)["message"]
            assert gateway.starts == ["a", "b", "b"]
            assert await gateway.residents() == set()


async def test_start_that_fails_is_told_to_all_who_wait_and_not_repeated_for_each(
    home: Home,
) -> None:
    """The engine's last lines for five, then 503 with a true retry-after, until it starts."""
    gate, needed = home.path / "gate", home.path / "needed"
    home.configure(stub_config("a", gate=str(gate), needs=str(needed)), "a")
    os.mkfifo(gate)
    async with open_real_gateway(home) as gateway:
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await gateway.chat("a"))

        async def five_wait() -> bool:
            resident = await gateway.resident("a")
            return resident is not None and resident["queued"] == 5

        async with anyio.create_task_group() as clients:
            for _ in range(5):
                clients.start_soon(ask)
            await until(five_wait)
            # Opened and closed: the loading goes on, and from now on at once.
            await anyio.to_thread.run_sync(lambda: gate.open("wb").close())
            gate.unlink()
            gate.touch()
        for answer in answers:
            assert (answer.status_code, error_of(answer)["code"]) == (503, "start_failed")
            assert f"error: {needed} is missing" in error_of(answer)["message"]
        assert gateway.starts == ["a"]
        assert await told_to_come_again(gateway) == 1

        # An administrator's load does not wait for that; each failure in a row doubles it.
        assert (await gateway.admin("a", "load")).status_code == 503
        assert await told_to_come_again(gateway) == 2
        needed.touch()
        assert (await gateway.admin("a", "load")).status_code == 200
        await gateway.ask("a")

        # A success has reset it.
        await gateway.admin("a", "unload")
        needed.unlink()
        assert error_of(await gateway.chat("a"))["code"] == "start_failed"
        retry_after_s = await told_to_come_again(gateway)
        assert retry_after_s == 1
        assert gateway.starts == ["a"] * 4

        needed.touch()
        await anyio.sleep(retry_after_s)
        await gateway.ask("a")
        assert gateway.starts == ["a"] * 5


async def told_to_come_again(gateway: RealGateway) -> int:
    """Be refused without a start, and return after how many seconds to come again."""
    answer = await gateway.chat("a")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "breaker_open")
    assert answer.headers["x-should-retry"] == "true"
    assert "is missing" in error_of(answer)["message"]
    return int(answer.headers["retry-after"])
