"""Models that take turns, through the real gateway and with real servers."""

from __future__ import annotations

import statistics
from pathlib import Path

import anyio
import pytest
from support.commands import Home, stub_config
from support.real_gateway import open_real_gateway

LOAD_S = 0.5
MAX_WAIT_S = 2.0
#: How long each of A's clients is served. They differ, so that their answers overlap always.
SERVICE_S = (0.25, 0.30, 0.35)
#: For what a machine does besides: ending one process, starting another, finding it ready.
ALLOWANCE_S = 0.5


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three models of which one fits at a time; each takes half a second to load."""
    home = Home.make(tmp_path)
    pool = f"[pool]\nmax_size = 1\nmax_wait_s = {MAX_WAIT_S}\n"
    routing = '[routing]\nplanner = "count"\n'
    home.configure(stub_config("a", "b", "c", load_s=LOAD_S, extra=routing + pool), "a", "b", "c")
    return home


@pytest.mark.parametrize(
    "times", [3, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
async def test_client_of_a_model_that_waits_for_a_busy_one_is_served_in_bounded_time(
    home: Home, times: int
) -> None:
    """B is answered within its patience, A's drain, and its load; A's clients lose nothing."""
    waits: list[float] = []
    served = 0
    async with open_real_gateway(home) as gateway, anyio.create_task_group() as clients:
        answered = [anyio.Event() for _ in SERVICE_S]

        async def busy(number: int) -> None:
            nonlocal served
            while len(waits) < times:
                # By turns whole and as a stream.
                await gateway.ask("a", takes_s=SERVICE_S[number], stream=served % 2 == 0)
                served += 1
                answered[number].set()

        for number in range(len(SERVICE_S)):
            clients.start_soon(busy, number)
        while len(waits) < times:
            # Not before each of A's clients is at work again.
            answered[:] = [anyio.Event() for _ in SERVICE_S]
            for event in answered:
                await event.wait()
            waits.append(await gateway.ask("b"))

    assert gateway.starts.count("b") == times
    assert served >= times * len(SERVICE_S)
    told = f"min {min(waits):.3f} median {statistics.median(waits):.3f} max {max(waits):.3f}"
    print(f"{times} waits in seconds: {told}; {served} answers of A")
    # A machine that halts for a moment may end all of A's answers at once: an idle A yields sooner.
    assert max(waits) >= MAX_WAIT_S, "A was never busy: nothing was shown"
    assert max(waits) <= MAX_WAIT_S + max(SERVICE_S) + LOAD_S + ALLOWANCE_S


async def test_thirty_clients_of_three_models_in_turn_cost_five_loads_at_most(home: Home) -> None:
    """ABCABC becomes AABBCC, and everybody is answered whole."""
    async with open_real_gateway(home) as gateway:
        async with anyio.create_task_group() as clients:
            for number in range(30):
                clients.start_soon(gateway.ask, "abc"[number % 3])
    print(f"loads: {gateway.starts}")
    assert len(gateway.starts) <= 5
