"""The way to the far machine, gone step by step, for whoever wonders where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gglib.domain.way_step import WayStep
from gglib.errors import AdapterError, EngineNotFound, NodeUnreachable
from gglib.ports.context import EngineSet
from gglib_adapters.runners.ssh.engines import FarEngines
from gglib_adapters.runners.ssh.far_servers import FarServers
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import Step
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

__all__ = ["examine"]

_TO_THE_SHELL = (Step.RESOLVE, Step.CONNECT, Step.HOST_KEY, Step.AUTH, Step.SHELL)
_WORKS = {
    Step.RESOLVE: "ssh knows {host}",
    Step.CONNECT: "{host} answers",
    Step.HOST_KEY: "it is the machine that it was",
    Step.AUTH: "it lets us in",
    Step.SHELL: "its sh works; servers are kept in {data_dir}",
}


async def examine(
    settings: SshRunnerSettings,
    link: Link,
    servers: FarServers,
    engines: FarEngines,
    known: EngineSet,
    model_files: Sequence[Path],
) -> list[WayStep]:
    """Return the steps, as far as they lead."""
    host, found = settings.host, list[WayStep]()
    try:
        data_dir = (await link.machine()).data_dir
        found += _passed(host, data_dir, len(_TO_THE_SHELL))
        if (reason := await servers.unwritable()) is not None:
            detail = f"no server's record can be kept in {reason}"
            fix = "make room there, or choose another data_dir in the runner's section"
            found[-1] = WayStep(name=Step.SHELL, works=False, detail=detail, fix=fix)
        found.append(await _engine(engines, known))
        found += [await _model_file(servers, host, path) for path in model_files]
        found.append(await _forward(link, servers, host))
    except NodeUnreachable as error:
        if not found and error.step in _TO_THE_SHELL:
            found += _passed(host, "", _TO_THE_SHELL.index(Step(error.step)))
        found.append(WayStep(name=error.step, works=False, detail=error.reason, fix=error.fix))
    return found


def _passed(host: str, data_dir: str, count: int) -> list[WayStep]:
    return [
        WayStep(name=step, works=True, detail=_WORKS[step].format(host=host, data_dir=data_dir))
        for step in _TO_THE_SHELL[:count]
    ]


async def _engine(engines: FarEngines, known: EngineSet) -> WayStep:
    try:
        engine = await engines.llama_server(known)
        path = (await engine.probe()).path
    except EngineNotFound as error:
        fix = "; or ".join(error.ways)
        return WayStep(name=Step.ENGINE, works=False, detail=error.reason, fix=fix)
    except AdapterError as error:
        return WayStep(name=Step.ENGINE, works=False, detail=str(error))
    return WayStep(name=Step.ENGINE, works=True, detail=str(path))


async def _model_file(servers: FarServers, host: str, path: Path) -> WayStep:
    works = await servers.exists(path)
    fix = None if works else f"copy it there (scp), or correct its path, which is one on {host}"
    detail = str(path) if works else f"{path} is not there"
    return WayStep(name=Step.MODEL_FILE, works=works, detail=detail, fix=fix)


async def _forward(link: Link, servers: FarServers, host: str) -> WayStep:
    ports = await servers.listening_ports()
    # One who hangs up at once looks like one who is not to be reached: so several are tried.
    works = not ports
    for port in ports:
        works = works or await link.forwards.leads_to(port)
    if works:
        return WayStep(name=Step.FORWARD, works=True, detail="servers there are reached from here")
    fix = f"set AllowTcpForwarding yes (or local) in sshd_config of {host}"
    detail = f"{host} does not let us through to its own ports"
    return WayStep(name=Step.FORWARD, works=False, detail=detail, fix=fix)
