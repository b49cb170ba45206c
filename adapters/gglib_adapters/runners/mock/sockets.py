"""The socket of a mock server: on the port it should have, and as alive as the server."""

from __future__ import annotations

import errno

from gglib.domain.config import ServerConfig
from gglib.errors import PortInUse, StartFailed
from gglib_adapters.runners.mock.course import Course
from gglib_adapters.runners.mock.engine_server import MockEngineServer
from gglib_adapters.runners.mock.script import MockScript
from gglib_adapters.runners.mock.world import MockWorld

__all__ = ["open_engine_server"]

#: What ``/props`` tells where neither the script nor the configuration says.
_CONTEXT_SIZE = 4096


def open_engine_server(
    world: MockWorld, config: ServerConfig, script: MockScript, course: Course
) -> MockEngineServer:
    """Return a server that listens on the port that ``config`` asks for, else on a free one.

    Raises:
        PortInUse: somebody else listens on ``config.port``.
        StartFailed: the system gives it no port.
    """
    candidates = world.free_ports(config.base_port) if config.base_port else iter((0,))
    if config.port is not None:
        candidates = iter((config.port,))
    for port in candidates:
        engine = MockEngineServer(
            model=config.model_name,
            reply=script.reply,
            port=port,
            chunk_delay_s=script.chunk_delay_s,
            dies_after_chunks=script.dies_after_chunks,
            context_size=course.context_size or _CONTEXT_SIZE,
            slots_total=course.slots_total or 1,
            condition=lambda: course.condition,
        )
        try:
            engine.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            reason = f"could not listen on port {port}: {error}"
            raise StartFailed(config.model_name, None, (), reason) from error
        return engine
    if config.port is not None:
        raise PortInUse(config.port)
    raise StartFailed(config.model_name, None, (), "there is no free port")
