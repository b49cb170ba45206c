"""The real gateway on a real port, in a thread of its own, in front of mock servers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from gglib.domain.model import Model, ModelDefaults
from gglib.gateway.serve import Gateway, open_gateway
from gglib.logs import SilentSink
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.settings import GatewaySettings, Settings
from gglib.testing.mock_parts import MockModelSource
from gglib.testing.mocked_library import check_unused, mock_adapters
from gglib_adapters.runners.mock import FakeClock, MockRunner

__all__ = ["MockGateway", "mock_gateway"]


class MockGateway:
    """A gateway to point clients at. Its methods may be called from any thread."""

    def __init__(
        self,
        gateway: Gateway,
        catalog: ModelCatalog,
        runner: MockRunner,
        portal: BlockingPortal,
    ) -> None:
        self.url = gateway.address
        """``http://127.0.0.1:PORT``."""
        self.base_url = f"{gateway.address}/v1"
        """What an OpenAI client takes as ``base_url``."""
        self.admin_token = gateway.admin_token
        """A bearer token that the routes under ``/admin`` want."""
        self.runner = runner
        """The mock runner behind it: scripts, calls, crashes."""
        self._catalog = catalog
        self._portal = portal

    def add_model(self, name: str, *, aliases: Iterable[str] = (), **defaults: Any) -> Model:
        """Add a model that clients may name, and return it.

        ``defaults`` are fields of ``gglib.ModelDefaults``, such as ``concurrency_limit``.
        """
        return self._portal.call(self._add_model, name, tuple(aliases), ModelDefaults(**defaults))

    async def _add_model(
        self, name: str, aliases: tuple[str, ...], defaults: ModelDefaults
    ) -> Model:
        located = await MockModelSource().locate(f"{name}.gguf")
        model = Model(
            id=0,
            name=name,
            paths=located.paths,
            size_bytes=located.size_bytes,
            facts=located.facts,
            aliases=aliases,
            defaults=defaults,
        )
        return await self._catalog.add(model)


@contextmanager
def mock_gateway(
    data_dir: Path, runner: MockRunner, *, events: EventSink | None = None, **settings: Any
) -> Iterator[MockGateway]:
    """Serve on a free port of loopback for the block; at its end requests in flight are cut.

    ``runner`` must have sockets, the machine's clock (clients wait in real time), and no other
    gateway or library. ``settings`` are keys of ``[gateway]``, such as ``api_keys``.

    Raises:
        ValueError: ``runner`` is not of that kind.
    """
    if not runner.sockets or isinstance(runner.clock, FakeClock):
        raise ValueError("a gateway needs MockRunner(sockets=True, clock=SystemClock())")
    check_unused(runner)
    chosen = GatewaySettings(**{"port": 0, "shutdown_timeout_s": 0.0, **settings})
    given = mock_adapters(runner)
    assert isinstance(given.catalog, ModelCatalog)
    opened = open_gateway(
        Settings(data_dir=data_dir, gateway=chosen),
        events=events or SilentSink(),
        clock=runner.clock,
        given=given,
    )
    with start_blocking_portal() as portal:
        manager = portal.wrap_async_context_manager(opened)
        gateway = manager.__enter__()
        try:
            yield MockGateway(gateway, given.catalog, runner, portal)
        finally:
            portal.call(gateway.cut)
            # Without the block's error, which the gateway's task groups would wrap.
            manager.__exit__(None, None, None)
