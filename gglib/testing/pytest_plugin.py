"""Fixtures for projects that use gglib. pytest finds them wherever gglib is installed.

Nothing of weight is imported before a fixture is used: every run of pytest loads this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gglib.library import Library
    from gglib.ports.clock import Clock
    from gglib.testing.mocked_gateway import MockGateway
    from gglib_adapters.runners.mock import MockRunner

#: So that a broken promise shows the values that broke it.
pytest.register_assert_rewrite("gglib.testing.contracts")


@pytest.fixture
def gglib_clock(request: pytest.FixtureRequest) -> Clock:
    """Return the time of ``mock_runner``: the machine's with a gateway, else one that leaps.

    Override it to own the time: ``FakeClock()`` moves by ``await clock.advance(seconds)`` only.
    """
    if _has_gateway(request):
        from gglib.bootstrap import SystemClock

        return SystemClock()
    from gglib.testing import FakeClock

    return FakeClock(auto_advance=True)


@pytest.fixture
def mock_runner(request: pytest.FixtureRequest, gglib_clock: Clock) -> Iterator[MockRunner]:
    """Give a runner whose servers do what their scripts say; with sockets if there is a gateway."""
    from gglib.testing import MockRunner

    with MockRunner(clock=gglib_clock, sockets=_has_gateway(request)) as runner:
        yield runner


@pytest.fixture
async def gglib_lib(
    request: pytest.FixtureRequest,
    anyio_backend: object,
    mock_runner: MockRunner,
    tmp_path: Path,
) -> AsyncIterator[Library]:
    """Open the library over ``mock_runner``, for tests that anyio runs."""
    del anyio_backend
    if type(request.node).__module__.startswith("pytest_asyncio"):
        pytest.fail(
            "gglib_lib lives in anyio's event loop, and pytest-asyncio runs this test in another: "
            "mark it with pytest.mark.anyio, or open gglib.testing.mock_library() in the test"
        )
    if _has_gateway(request):
        pytest.fail("gglib_lib and gglib_gateway would share one mock_runner: use one of them")
    from gglib.testing import mock_library

    async with mock_library(tmp_path / "gglib", mock_runner) as library:
        yield library


@pytest.fixture
def gglib_gateway(mock_runner: MockRunner, tmp_path: Path) -> Iterator[MockGateway]:
    """Serve a gateway in front of ``mock_runner``, for tests of any kind."""
    from gglib.testing import mock_gateway

    with mock_gateway(tmp_path / "gglib-gateway", mock_runner) as gateway:
        yield gateway


def _has_gateway(request: pytest.FixtureRequest) -> bool:
    return "gglib_gateway" in request.fixturenames
