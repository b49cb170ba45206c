"""What all contracts share: every test runs on every event loop that an adapter may meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

__all__ = ["CANCEL_AFTER", "Backend", "Contract", "at_once", "cancelled_after"]

#: An event loop as anyio names it: ``"trio"``, or ``("asyncio", {"use_uvloop": True})``.
Backend: TypeAlias = str | tuple[str, Mapping[str, Any]]

#: After how many turns of the event loop a call is cancelled: at each of its first steps.
CANCEL_AFTER = (0, 1, 2, 3, 5)


class Contract:
    """The base of every contract: subclass one, override its fixtures, inherit its tests.

    What an adapter can do beyond its port's promises is declared by class attributes, so
    that no test has to know which adapter it runs on.
    """

    pytestmark = pytest.mark.anyio

    backends: Sequence[Backend] = ("asyncio", "trio")
    """The event loops that the async tests run on. One that is not installed is skipped."""

    @pytest.fixture
    def anyio_backend(self) -> Backend:
        """Hide anyio's own fixture, whose parameters would be taken beside the ones below."""
        return self.backends[0]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each async test once per event loop."""
        if "anyio_backend" in metafunc.fixturenames:
            backends = [_parameter(backend) for backend in self.backends]
            # The module's scope lets a subclass have async fixtures that live that long.
            metafunc.parametrize("anyio_backend", backends, scope="module")


def _parameter(backend: Backend) -> Any:
    if isinstance(backend, str):
        name = label = backend
    else:
        name, label = backend[0], "-".join((backend[0], *backend[1]))
    missing = name != "asyncio" and find_spec(name) is None
    skip = pytest.mark.skip(reason=f"{name} is not installed: this adapter was not tested on it")
    return pytest.param(backend, id=label, marks=[skip] if missing else [])


async def at_once(call: Callable[[int], Awaitable[object]], count: int = 10) -> None:
    """Call ``call(0)``, ``call(1)``, … ``count`` times at once, and wait for all."""

    async def one(number: int) -> None:
        await call(number)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)


async def cancelled_after(steps: int, call: Callable[[], Awaitable[object]]) -> None:
    """Begin ``call``, let the event loop turn ``steps`` times, cancel it and wait for its end.

    It may have ended before. 0 cancels it at its first checkpoint.
    """
    scope = anyio.CancelScope()

    async def begin() -> None:
        with scope:
            await call()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        for _ in range(steps):
            await checkpoint()
        scope.cancel()
