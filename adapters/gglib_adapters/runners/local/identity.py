"""Who a server is: what it carries in its environment, and how it is known again by that."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ulid import ULID

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.errors import InvalidValue
from gglib.ports.engine import Engine
from gglib_adapters.process_table import START_TIME_TOLERANCE_S
from gglib_adapters.runners.local import processes
from gglib_adapters.runners.local.processes import Process

__all__ = [
    "HANDLE_VARIABLE",
    "Site",
    "carried_engine",
    "handle_carried_by",
    "leader_of",
    "past_handle",
    "server_environment",
]

#: The variable by which a process carries what a handle needs beyond its own identity.
HANDLE_VARIABLE = "GGLIB_SERVER_HANDLE"

#: Nothing of ours listens there: a server that has ended has no port.
_NO_PORT = 1


class Site:
    """Where servers are looked for: a machine, a data directory and a runner's name."""

    __slots__ = ("data_dir", "node", "runner")

    def __init__(self, *, node: str, data_dir: Path, runner: str) -> None:
        self.node = node
        self.data_dir = str(data_dir.resolve())
        self.runner = runner


def server_environment(
    config: ServerConfig, engine: Engine, site: Site, handle: ProcessHandle
) -> dict[str, str]:
    """Return the whole environment of a server.

    gglib's own variables stay here: they may hold keys, and name another server's identity.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GGLIB_")}
    carried = {
        "model_id": handle.model_id,
        "model_name": handle.model_name,
        "port": handle.port,
        "base_url": handle.base_url,
        "ca_file": handle.ca_file,
        "data_dir": site.data_dir,
        "runner": site.runner,
        "started_at": handle.started_at,
        "engine": engine.name,
    }
    return {
        **inherited,
        **engine.environment(config),
        **config.environment,
        SERVER_ID_VARIABLE: handle.server_id,
        HANDLE_VARIABLE: json.dumps(carried),
    }


def handle_carried_by(
    process: Process, environment: Mapping[str, str], site: Site
) -> ProcessHandle | None:
    """Return the handle that a process of a server of ``site`` carries, or ``None``."""
    server_id = environment.get(SERVER_ID_VARIABLE)
    carried = _carried(environment)
    if not server_id:
        return None
    if carried.get("data_dir") != site.data_dir or carried.get("runner") != site.runner:
        return None
    try:
        return ProcessHandle(
            model_id=int(carried["model_id"]),  # type: ignore[call-overload]
            model_name=str(carried["model_name"]),
            pid=process.pid,
            port=carried["port"],  # type: ignore[arg-type]
            started_at=carried["started_at"],  # type: ignore[arg-type]
            server_id=server_id,
            runner=site.runner,
            node=site.node,
            base_url=str(carried["base_url"]),
            process_started_at=process.started_at,
            ca_file=carried.get("ca_file"),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, InvalidValue):
        # Anybody may write anything into an environment; what is not ours is left alone.
        return None


def past_handle(model_name: str, server_id: str, site: Site) -> ProcessHandle:
    """Return what is left of a server that has ended: good for its output alone."""
    return ProcessHandle(
        model_id=0,
        model_name=model_name,
        pid=None,
        port=_NO_PORT,
        started_at=ULID.from_str(server_id).timestamp,
        server_id=server_id,
        runner=site.runner,
        node=site.node,
        base_url=f"http://127.0.0.1:{_NO_PORT}",
    )


def carried_engine(pid: int) -> str | None:
    """Return the name of the engine that the server with this pid was started with."""
    engine = _carried(processes.environment(pid) or {}).get("engine")
    return engine if isinstance(engine, str) else None


def leader_of(handle: ProcessHandle, site: Site) -> Process | None:
    """Return the live process with the identity of ``handle``; never one with only its pid."""
    if handle.node != site.node or handle.pid is None or handle.process_started_at is None:
        return None
    process = processes.read(handle.pid)
    if process is None or not process.alive:
        return None
    if abs(process.started_at - handle.process_started_at) > START_TIME_TOLERANCE_S:
        return None
    # Where it can be read; one that overwrote its environment is known by its start time.
    carried = (processes.environment(handle.pid) or {}).get(SERVER_ID_VARIABLE)
    return process if carried in (None, handle.server_id) else None


def _carried(environment: Mapping[str, str]) -> Mapping[str, object]:
    try:
        carried = json.loads(environment.get(HANDLE_VARIABLE, "null"))
    except ValueError:
        return {}
    return carried if isinstance(carried, dict) else {}
