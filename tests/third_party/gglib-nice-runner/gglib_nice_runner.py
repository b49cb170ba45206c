"""A gglib runner whose servers give way to everything else on the machine."""

import json
import os
from collections import deque
from contextlib import aclosing, asynccontextmanager, suppress
from subprocess import DEVNULL

import attrs
import psutil
from anyio import sleep, to_thread

from gglib import ProcessHandle, ServerHealth
from gglib.errors import NotRunning, StartFailed, StopFailed
from gglib.ports import ProcessRunner
from gglib_adapters.free_port import choose_port
from gglib_adapters.probing import HttpProbe


class NiceRunner(ProcessRunner):
    """Keeps a file per server in the data directory: its handle, and its engine's name."""

    children, stopping = [], []  # of all runners in this process: servers may outlive one

    def __init__(self, context, probe, *, niceness=10, stop_grace_s=10.0):
        self.context, self.probe, self.niceness, self.grace = context, probe, niceness, stop_grace_s
        self.folder = context.data_dir / f"servers-of-{context.name}"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    async def start(self, config):
        engine = self.context.engines.for_config(config)
        await engine.probe()
        port = choose_port(config.port, config.base_port, {h.port for h in self.running()})
        handle = self.context.handle_for(config, port=port, node=os.uname()[1], engine=engine)
        variables = {**engine.environment(config), **config.environment}
        env = {**os.environ, **variables, "GGLIB_SERVER_ID": handle.server_id}
        cwd = engine.working_directory or self.context.data_dir
        argv, place = engine.command(config, port), {"env": env, "cwd": cwd, "process_group": 0}
        try:
            with (self.folder / f"{handle.server_id}.log").open("ab") as log:
                child = psutil.Popen(argv, stdin=DEVNULL, stdout=log, stderr=log, **place)
        except OSError as error:
            raise StartFailed(config.model_name, None, (), str(error)) from error
        self.children.append(child)
        child.nice(self.niceness)  # it is there, even if it has ended: nobody collected it
        handle = attrs.evolve(handle, pid=child.pid, process_started_at=child.create_time())
        record = json.dumps({"handle": attrs.asdict(handle), "engine": engine.name})
        (self.folder / f"{handle.server_id}.json").write_text(record)
        return handle

    async def stop(self, handle):
        if handle not in self.stopping:  # else a second caller waits for the same end
            self.engine_of(handle)
        self.stopping.append(handle)
        try:
            for end, patience_s in [("terminate", self.grace), ("kill", 5), ("kill", 5)]:
                for process in (family := self.family(handle)):
                    with suppress(psutil.NoSuchProcess):
                        getattr(process, end)()
                await to_thread.run_sync(psutil.wait_procs, family, patience_s)
            if family := self.family(handle):
                raise StopFailed(handle.model_name, tuple(process.pid for process in family))
            (self.folder / f"{handle.server_id}.json").unlink(missing_ok=True)
        finally:
            self.stopping.remove(handle)

    async def is_running(self, handle):
        return handle in self.running()

    async def list_running(self):
        return sorted(self.running(), key=lambda handle: handle.started_at)

    async def health(self, handle):
        engine = self.engine_of(handle)
        asked = {"path": engine.health_path, "statuses": engine.health_statuses}
        health = await self.probe.probe(handle.base_url, ca_file=handle.ca_file, **asked)
        pids = {s.pid for s in psutil.net_connections("tcp") if s.laddr.port == handle.port}
        if health.healthy and not pids & {process.pid for process in self.family(handle)}:
            return ServerHealth.unhealthy("the port is not its own", port_held_by="a stranger")
        return health

    async def logs(self, handle, *, tail=20, follow=False):
        file = self.folder / f"{handle.server_id}.log"
        with suppress(FileNotFoundError), file.open(errors="replace") as output:
            for line in deque(output, tail):
                yield line.rstrip("\n")
            while follow:
                follow = handle in self.running()  # if not, what it said last is read all the same
                await sleep(0.05)
                for line in output.readlines():
                    yield line.rstrip("\n")

    def running(self):
        self.children[:] = [child for child in self.children if child.poll() is None]
        records = [json.loads(file.read_text()) for file in self.folder.glob("*.json")]
        engines = {ProcessHandle(**record["handle"]): record["engine"] for record in records}
        return {handle: engine for handle, engine in engines.items() if self.leader(handle)}

    def engine_of(self, handle):
        if handle not in (running := self.running()):
            raise NotRunning(handle.model_name)
        return self.context.engines[running[handle]]

    def leader(self, handle):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(handle.pid)
            same = process.create_time() == handle.process_started_at
            return {process} if same and process.status() != psutil.STATUS_ZOMBIE else set()

    def family(self, handle):
        shown = {p: p.info["environ"] or {} for p in psutil.process_iter(["environ"])}
        bearers = {p for p in shown if shown[p].get("GGLIB_SERVER_ID") == handle.server_id}
        return bearers | (self.leader(handle) or set())  # just executed, it shows nothing yet


@asynccontextmanager
async def open_nice_runner(context):
    """Open the runner of ``[runners.NAME] kind = "nice"``."""
    async with aclosing(HttpProbe(clock=context.clock, timeout_s=2)) as probe:
        yield NiceRunner(context, probe, **context.settings)
