"""``gglib serve``: the gateway in the foreground."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskStatus

from gglib.cli.options import COMMON, Common, settings_for
from gglib.cli.output import print_json, tell

if TYPE_CHECKING:
    from gglib.gateway.serve import Gateway

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

    SIGHUP has it read its settings anew.

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
        from gglib.gateway.open_files import allow_many_open_files
        from gglib.gateway.serve import open_gateway
        from gglib.logs import LogSink, configure_logs

        configure_logs(json_lines=common.json or not sys.stderr.isatty(), debug=common.debug)
        allow_many_open_files()
        async with anyio.create_task_group() as tasks:
            signals = _Signals()
            await tasks.start(signals.watch)
            reread = partial(settings_for, common, flags)
            async with open_gateway(settings, events=LogSink(), reread=reread) as gateway:
                signals.at_second = gateway.cut
                signals.at_hangup = partial(tasks.start_soon, gateway.reload)
                settle_garbage()
                _announce(gateway, as_json=common.json)
                await signals.first.wait()
            tasks.cancel_scope.cancel()

    anyio.run(work, backend="asyncio", backend_options={"use_uvloop": sys.platform != "win32"})


def _announce(gateway: Gateway, *, as_json: bool) -> None:
    if as_json:
        print_json({"address": gateway.address, "models": gateway.model_count})
        sys.stdout.flush()
    else:
        count = gateway.model_count
        models = "1 model" if count == 1 else f"{count} models"
        tell(f"gglib serves {models} at {gateway.address}/v1 (Ctrl-C stops)")


class _Signals:
    """The first one ends the gateway when its answers are finished, the second at once.

    SIGHUP asks for a reload, unless it tells that the terminal is gone.
    """

    def __init__(self) -> None:
        self.first = anyio.Event()
        self.at_second: Callable[[], None] | None = None
        self.at_hangup: Callable[[], object] | None = None
        self._had_terminal = _has_terminal()

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        """Watch, for ever."""
        with anyio.open_signal_receiver(*_heeded()) as signals:
            task_status.started()
            async for number in signals:
                if number == _HANGUP and not (self._had_terminal and not _has_terminal()):
                    # Before it serves there is nothing to reload: what it reads is new.
                    if self.at_hangup is not None:
                        self.at_hangup()
                    continue
                if self.first.is_set() and self.at_second is not None:
                    self.at_second()
                self.first.set()


#: Windows has none.
_HANGUP = getattr(signal, "SIGHUP", None)


def _heeded() -> list[signal.Signals]:
    """Return the signals to watch. Under ``nohup`` SIGHUP means nothing, and stays so."""
    heeded = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        heeded.append(_HANGUP)
    return heeded


def _has_terminal() -> bool:
    """Return whether this process has a terminal that it was started from."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
