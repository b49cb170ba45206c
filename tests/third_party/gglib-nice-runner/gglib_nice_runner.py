"""A gglib runner whose servers give way to everything else on the machine."""

import json
import os
from contextlib import aclosing, asynccontextmanager, suppress
from subprocess import DEVNULL, Popen

import attrs
import psutil
from anyio import sleep, to_thread

from gglib import ProcessHandle, ServerHealth
from gglib.errors import NotRunning, StartFailed
from gglib.ports import ProcessRunner
from gglib_adapters.free_port import choose_port
from gglib_adapters.probing import HttpProbe


class NiceRunner(ProcessRunner):
    """Keeps a file per server in the data directory: its handle, and its engine's name."""

    children, stopping = [], []  # of all runners in this process: servers may outlive one

    def __init__(self, context, probe, *, niceness=10, stop_grace_s=10.0):
        self.context, self.probe = context, probe
        self.niceness, self.grace_s = niceness, stop_grace_s
        self.folder = context.data_dir / f"servers-of-{context.name}"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    async def start(self, config):
        engine = self.context.engines.for_config(config)
        await engine.probe()
        port = choose_port(config.port, config.base_port, {h.port for h in self.running()})
        handle = self.context.handle_for(config, port=port, node=os.uname().nodename)
        variables = {**engine.environment(config), **config.environment}
        env = {**os.environ, **variables, "GGLIB_SERVER_ID": handle.server_id}
        argv, cwd = engine.command(config, port), engine.working_directory or self.context.data_dir
        try:
            with (self.folder / f"{handle.server_id}.log").open("ab") as log:
                child = Popen(
                    argv, env=env, cwd=cwd, stdin=DEVNULL, stdout=log, stderr=log, process_group=0
                )
        except OSError as error:
            raise StartFailed(config.model_name, None, (), str(error)) from error
        self.children.append(child)
        process = psutil.Process(child.pid)  # there, even if it has ended: nobody collected it
        process.nice(self.niceness)
        handle = attrs.evolve(handle, pid=child.pid, process_started_at=process.create_time())
        record = {"handle": attrs.asdict(handle), "engine": engine.name}
        (self.folder / f"{handle.server_id}.json").write_text(json.dumps(record))
        return handle

    async def stop(self, handle):
        if handle not in self.stopping:  # else a second caller waits for the same end
            self.engine_of(handle)
        self.stopping.append(handle)
        try:
            for end, patience_s in [("terminate", self.grace_s), ("kill", 10)]:
                family = self.family(handle)
                for process in family:
                    with suppress(psutil.NoSuchProcess):
                        getattr(process, end)()
                await to_thread.run_sync(psutil.wait_procs, family, patience_s)
            (self.folder / f"{handle.server_id}.json").unlink(missing_ok=True)
        finally:
            self.stopping.remove(handle)

    async def is_running(self, handle):
        return handle in self.running()

    async def list_running(self):
        return sorted(self.running(), key=lambda handle: handle.started_at)

    async def health(self, handle):
        engine = self.engine_of(handle)
        path, statuses = engine.health_path, engine.health_statuses
        health = await self.probe.probe(handle.base_url, path=path, statuses=statuses)
        sockets = [s for process in self.family(handle) for s in process.net_connections()]
        if health.healthy and handle.port not in {s.laddr.port for s in sockets}:
            return ServerHealth.unhealthy("the port is not its own", port_held_by="a stranger")
        return health

    async def logs(self, handle, *, tail=20, follow=False):
        with (self.folder / f"{handle.server_id}.log").open(errors="replace") as output:
            lines = output.readlines()[-tail:]
            while lines or follow:
                for line in lines:
                    yield line.rstrip("\n")
                follow = follow and handle in self.running()
                await sleep(0.05)
                lines = output.readlines()

    def running(self):
        self.children[:] = [child for child in self.children if child.poll() is None]
        found = {}
        for record in (json.loads(file.read_text()) for file in self.folder.glob("*.json")):
            handle = ProcessHandle(**record["handle"])
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(handle.pid)
                same = process.create_time() == handle.process_started_at
                if same and process.status() != psutil.STATUS_ZOMBIE:
                    found[handle] = record["engine"]
        return found

    def engine_of(self, handle):
        if handle not in (running := self.running()):
            raise NotRunning(handle.model_name)
        return self.context.engines[running[handle]]

    def family(self, handle):
        mine = {"GGLIB_SERVER_ID": handle.server_id}.items()
        everybody = psutil.process_iter(["environ"])
        return [process for process in everybody if mine <= (process.info["environ"] or {}).items()]


@asynccontextmanager
async def open_nice_runner(context):
    """Open the runner of ``[runners.NAME] kind = "nice"``."""
    async with aclosing(HttpProbe(clock=context.clock, timeout_s=2)) as probe:
        yield NiceRunner(context, probe, **context.settings)
