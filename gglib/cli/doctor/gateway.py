"""The gateway, and the port it is to have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from gglib.cli.doctor.findings import OK, WARNING, Finding
from gglib.cli.gateway_client import GatewayClient, find_gateway

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["look_at_gateway"]


async def look_at_gateway(parts: Composition) -> list[Finding]:
    """Return whether one serves, and if not, whether its port is free."""
    presence = find_gateway(parts.settings.data_dir)
    if presence is not None:
        async with GatewayClient(presence) as client:
            running = await client.running()
        detail = f"serves at {presence.address} (pid {presence.pid}), {len(running)} loaded"
        return [Finding("gateway", OK, detail)]
    port = parts.settings.gateway.port
    processes = await parts.process_table()
    holder = await anyio.to_thread.run_sync(processes.holder_of_port, port) if port else None
    if holder is not None:
        fix = "stop it, or serve on another: gglib serve --port N"
        return [Finding("gateway", WARNING, f"port {port} is in use by {holder}", fix)]
    return [Finding("gateway", OK, f"not running; port {port} is free")]
