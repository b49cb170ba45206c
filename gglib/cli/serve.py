"""``gglib serve``: the gateway in the foreground."""

from __future__ import annotations

import gc
import signal
import sys

import anyio

from gglib.cli.options import COMMON, Common, settings_for
from gglib.cli.output import print_json, tell

__all__ = ["serve"]


def settle_garbage() -> None:
    """Spare the collector what lives as long as the gateway, and most of its rounds.

    A request makes a few dozen objects and no cycle: a collection every 700 of them would
    be for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    insecure: bool | None = None,
    common: Common = COMMON,
) -> None:
    """Serve every model at one OpenAI-compatible address, until Ctrl-C.

    Parameters
    ----------
    host
        The address to listen on; loopback unless said otherwise.
    port
        The port; 0 lets the system choose.
    insecure
        Listen beyond loopback without a key.
    """
    flags = {"gateway.host": host, "gateway.port": port, "gateway.insecure": insecure}
    settings = settings_for(common, flags)

    async def work() -> None:
        from gglib.gateway.serve import open_gateway
        from gglib.logs import LogSink, configure_logs

        configure_logs(json_lines=common.json or not sys.stderr.isatty(), debug=common.debug)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with open_gateway(settings, events=LogSink()) as gateway:
                settle_garbage()
                if common.json:
                    print_json({"address": gateway.address, "models": gateway.model_count})
                    sys.stdout.flush()
                else:
                    models = (
                        "1 model" if gateway.model_count == 1 else f"{gateway.model_count} models"
                    )
                    tell(f"gglib serves {models} at {gateway.address}/v1 (Ctrl-C stops)")
                async for _ in signals:
                    gateway.stop()
                    break

    anyio.run(work, backend="asyncio", backend_options={"use_uvloop": sys.platform != "win32"})
