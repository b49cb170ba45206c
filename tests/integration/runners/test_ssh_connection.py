"""Servers on another machine outlive the line to it, and are found again by who they are."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from support.far_machine import FarMachine, far_machine
from support.far_runner import RETURN_S, Opener, There, carriers_of, nothing_left, opener, until

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.errors import EngineNotFound, NodeUnreachable, NotRunning, StartFailed
from gglib.testing.contexts import make_context
from gglib_adapters.runners.ssh import open_ssh_runner
from gglib_adapters.runners.ssh.far_servers import FarServers


@pytest.fixture
def anyio_backend() -> str:
    """One loop: the contract runs on both."""
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FarMachine]:
    """Give a machine behind an OpenSSH server; nothing may be left running on it."""
    (tmp_path / "box").mkdir()
    with far_machine(tmp_path / "box") as machine, nothing_left(tmp_path):
        yield machine


@pytest.fixture
def open_there(machine: FarMachine, tmp_path: Path) -> Opener:
    """Return what opens a runner of servers on the machine."""
    return opener(machine, tmp_path)


async def test_cut_line_is_made_again_and_the_server_has_lived_on(
    machine: FarMachine, open_there: Opener
) -> None:
    """It is the same process, ready again within the time, and asked for by nobody."""
    async with open_there() as there:
        handle = await there.start()
        await there.until_healthy(handle)
        assert machine.cut() == 1
        with anyio.fail_after(RETURN_S):
            await there.until_healthy(handle)
        assert await there.runner.list_running() == [handle]


async def test_random_cuts_while_serving_leak_nothing_and_start_nothing_twice(
    machine: FarMachine, open_there: Opener
) -> None:
    """Five cuts, whatever is being asked at that moment."""
    await cut_at_random(machine, open_there, cuts=5)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_fifty_random_cuts_while_serving_leak_nothing(
    machine: FarMachine, open_there: Opener
) -> None:
    """The same, for longer."""
    await cut_at_random(machine, open_there, cuts=50)


async def cut_at_random(machine: FarMachine, open_there: Opener, *, cuts: int) -> None:
    """Cut the line again and again under starts, stops and health checks."""
    chance = random.Random(7)
    async with open_there() as there:
        lasting = await there.start("lasting")
        await there.until_healthy(lasting)
        done = anyio.Event()

        async def come_and_go() -> None:
            while not done.is_set():
                handle = await there.start("passing")
                with suppress(NotRunning):
                    await there.runner.stop(handle)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_and_go)
            for _ in range(cuts):
                await anyio.sleep(chance.uniform(0, 0.4))
                machine.cut()
                began = time.monotonic()
                await there.until_healthy(lasting)
                assert time.monotonic() - began < RETURN_S
            done.set()
        assert await there.runner.list_running() == [lasting]
        ids = {process.environ()[SERVER_ID_VARIABLE] for process in carriers_of(there.folder)}
        assert ids == {lasting.server_id}
        assert len(carriers_of(there.folder)) == 1


async def test_cut_lines_leave_asyncio_nothing_to_wonder_about(
    machine: FarMachine, open_there: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """It learns how every ssh ended; nobody takes a status away from it."""
    async with open_there() as there:
        for _ in range(10):
            await there.runner.list_running()
            machine.cut()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_line_cut_during_a_start_starts_one_server(
    machine: FarMachine, open_there: Opener
) -> None:
    """Whenever it is cut: the start is asked for again, and is known by its nonce."""
    async with open_there() as there:
        await there.runner.list_running()
        for delay_s in (0.0, 0.01, 0.03, 0.06):
            started: list[ProcessHandle] = []

            async def start(started: list[ProcessHandle] = started) -> None:
                started.append(await there.start())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start)
                await anyio.sleep(delay_s)
                machine.cut()
            assert await there.runner.list_running() == started
            assert [process.pid for process in carriers_of(there.folder)] == [started[0].pid]
            await there.runner.stop(started[0])


async def test_stop_goes_on_while_the_line_is_cut(machine: FarMachine, open_there: Opener) -> None:
    """The far side ends the server, and its deaf family, by itself."""
    async with open_there(stop_grace_s=0.5) as there:
        there.engine.for_model["alpha"] = {"deaf": True, "children": ["deaf", "orphan"]}
        handle = await there.start()
        await there.until_healthy(handle)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(there.runner.stop, handle)
            await anyio.sleep(0.2)
            machine.cut()
        assert not await there.runner.is_running(handle)
        assert carriers_of(there.folder) == []


async def test_stop_that_is_cut_off_is_no_stop_of_a_server_that_ended_by_itself(
    machine: FarMachine, open_there: Opener
) -> None:
    """It is asked for again, and is known as the one that ended it."""
    async with open_there() as there:
        for delay_s in (0.005, 0.01, 0.02, 0.05):
            handle = await there.start()
            await there.until_healthy(handle)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(there.runner.stop, handle)
                await anyio.sleep(delay_s)
                machine.cut()
            assert not await there.runner.is_running(handle)


async def test_machine_out_of_reach_is_said_and_never_taken_for_a_dead_server(
    machine: FarMachine, open_there: Opener
) -> None:
    """Every question says so; when it is back, the server is there."""
    async with open_there() as there:
        handle = await there.start()
        await there.until_healthy(handle)
        machine.go_away()
        for ask in (there.runner.is_running, there.runner.adopt, there.runner.stop):
            with pytest.raises(NodeUnreachable) as caught:
                await ask(handle)
            assert caught.value.node == "box"
        with pytest.raises(NodeUnreachable):
            await there.runner.list_running()
        with pytest.raises(NodeUnreachable):
            await there.start("beta")
        health = await there.runner.health(handle)
        assert not health.healthy
        assert health.is_out_of_reach
        with anyio.move_on_after(0.2) as waited:
            await there.runner.wait(handle)
        assert waited.cancelled_caught, "wait does not return for a server that may run"
        assert psutil.Process(handle.pid).is_running()
        machine.start()


async def test_server_whose_stop_could_not_be_asked_for_is_stopped_when_the_machine_returns(
    machine: FarMachine, open_there: Opener
) -> None:
    """A failed stop is not forgotten while the runner is open; other servers are left alone."""
    async with open_there() as there:
        handle, other = await there.start(), await there.start("other")
        machine.go_away()
        with pytest.raises(NodeUnreachable):
            await there.runner.stop(handle)
        machine.start()

        async def is_stopped() -> bool:
            with suppress(NodeUnreachable):
                return not await there.runner.is_running(handle)
            return False

        with anyio.fail_after(RETURN_S):
            await until(is_stopped)
        assert await there.runner.is_running(other)


async def test_runner_closes_in_the_midst_of_a_stop(
    machine: FarMachine, open_there: Opener
) -> None:
    """The stop waits for answers that nobody can bring any more; the far side goes on with it."""
    with anyio.fail_after(RETURN_S), suppress(_Closed):
        async with open_there(stop_grace_s=1) as there:
            there.engine.for_model["alpha"] = {"deaf": True}
            handle = await there.start()
            await there.until_healthy(handle)
            with anyio.move_on_after(0.2):
                await there.runner.stop(handle)
            raise _Closed
    async with open_there() as there:
        assert await there.runner.is_running(handle)
        with anyio.fail_after(RETURN_S):
            while await there.runner.is_running(handle):
                await anyio.sleep(0.01)


class _Closed(Exception):
    """Leaves a runner without a stop of its servers."""


async def test_restarted_sshd_is_found_again(machine: FarMachine, open_there: Opener) -> None:
    """Within the time after it listens, without anybody's doing."""
    async with open_there() as there:
        handle = await there.start()
        await there.until_healthy(handle)
        machine.go_away()
        assert not (await there.runner.health(handle)).healthy
        machine.start()
        with anyio.fail_after(RETURN_S):
            await there.until_healthy(handle)


@contextmanager
def stranger_at(port: int) -> Iterator[list[str]]:
    """Answer 200 to whatever is asked at a port of the far machine; give what was asked."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", port), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


async def test_who_took_the_port_of_a_server_that_died_meanwhile_is_not_led_to(
    machine: FarMachine, open_there: Opener
) -> None:
    """Anybody with an account there may; the server is gone, and nobody is asked in its place."""
    async with open_there() as there:
        handle, other = await there.start(), await there.start("other")
        await there.until_healthy(handle)
        machine.go_away()
        process = psutil.Process(handle.pid)
        process.kill()
        process.wait(RETURN_S)
        with stranger_at(handle.port) as asked:
            machine.start()
            with anyio.fail_after(RETURN_S):
                await there.until_healthy(other)
            assert await there.runner.way_to(handle) is None
            with pytest.raises(OSError, match="No such file"):
                await there.post(handle, "/v1/chat/completions", b"{}")
            with pytest.raises(NotRunning):
                await there.runner.health(handle)
        assert asked == []


async def test_new_connection_trusts_no_answer_before_it_is_known_whose_it_is(
    machine: FarMachine, open_there: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each connection: what was seen through another may have changed."""
    holders: list[str] = []

    async def holder(_servers: FarServers, _handle: ProcessHandle) -> str:
        return holders.pop(0)

    monkeypatch.setattr(FarServers, "holder", holder)
    async with open_there() as there:
        handle = await there.start()
        holders += ["own"]
        await there.until_healthy(handle)
        assert (await there.runner.health(handle)).healthy
        machine.cut()
        holders += ["other nc", "own"]
        with anyio.fail_after(RETURN_S):
            while (await there.runner.health(handle)).port_held_by != "nc":
                await anyio.sleep(0.01)
            await there.until_healthy(handle)
        assert holders == []


async def test_first_unreachable_machine_says_at_which_step_and_what_to_do(
    machine: FarMachine, open_there: Opener
) -> None:
    """A wrong key, an unknown host key, a name that is none, a port where nobody listens."""
    config = machine.config.read_text()

    async def failure(**settings: Any) -> NodeUnreachable:
        async with open_there(**settings) as there:
            with pytest.raises(NodeUnreachable) as caught:
                await there.runner.list_running()
            return caught.value

    (machine.folder / "authorized_keys").write_text("")
    assert (await failure()).step == "auth"
    (machine.folder / "known_hosts").write_text("")
    unknown = await failure()
    assert unknown.step == "host key"
    assert "compare the fingerprint" in unknown.fix
    machine.config.write_text(config.replace("HostName 127.0.0.1", "HostName no.such.invalid"))
    assert (await failure()).step == "resolve"
    machine.config.write_text(config.replace(f"Port {machine.port}", "Port 1"))
    assert (await failure()).step == "connect"


async def test_far_data_directory_that_cannot_be_made_is_named(
    machine: FarMachine, open_there: Opener
) -> None:
    """It says which, and why."""
    (machine.folder / "file").touch()
    async with open_there(data_dir=str(machine.folder / "file" / "x")) as there:
        with pytest.raises(NodeUnreachable, match="data directory cannot be made"):
            await there.runner.list_running()


async def test_missing_far_programs_are_named(machine: FarMachine, open_there: Opener) -> None:
    """The llama-server that engine_path names, and the program of a command."""
    async with open_there(engine_path="/opt/llama/llama-server") as there:
        with pytest.raises(EngineNotFound, match="'/opt/llama/llama-server' on box"):
            await there.runner.start(
                ServerConfig(model_id=1, model_name="a", model_path=Path("/a.gguf"), engine=None)
            )
        there.engine.options["program"] = "/opt/stub"
        with pytest.raises(StartFailed, match="no program '/opt/stub' on box"):
            await there.start()


async def test_secrets_are_on_no_command_line(machine: FarMachine, open_there: Opener) -> None:
    """The key of a server reaches it by its environment, and nothing else shows it."""
    secret = "s3cret-that-nobody-may-see"
    async with open_there() as there:
        shown: list[str] = []
        done = anyio.Event()

        async def watch() -> None:
            while not done.is_set():
                for process in psutil.process_iter():
                    with suppress(psutil.Error):
                        shown.extend(word for word in process.cmdline() if secret in word)
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            handle = await there.start(environment={"STUB_API_KEY": secret})
            await there.until_healthy(handle)
            done.set()
        assert psutil.Process(handle.pid).environ()["STUB_API_KEY"] == secret
        assert shown == []
        for path in machine.folder.rglob("far/**/*"):
            if path.is_file():
                assert secret not in path.read_text(errors="replace")


async def test_two_gglibs_on_one_machine_do_not_see_each_others_servers(
    machine: FarMachine, open_there: Opener, tmp_path: Path
) -> None:
    """Though they share the far data directory, and neither takes the other's port."""
    async with open_there() as there:
        mine = await there.start()
        other_dir = tmp_path / "there-too"
        other_dir.mkdir()
        context = make_context(
            other_dir, name="box", settings=machine.settings, engines={"stub": there.engine}
        )
        async with open_ssh_runner(context) as other:
            assert await other.list_running() == []
            assert not await other.is_running(mine)
            with pytest.raises(NotRunning):
                await other.stop(mine)
            theirs = await There(other, there.engine, there.folder).start(base_port=mine.port)
            assert theirs.port > mine.port
            await other.stop(theirs)
        assert await there.runner.is_running(mine)


@pytest.mark.soak
async def test_abandoned_server_ends_itself_after_its_time(
    machine: FarMachine, open_there: Opener
) -> None:
    """Not while its gglib is there, though nothing is asked; and not without orphan_ttl_s."""
    async with open_there(orphan_ttl_s=4) as there:
        handle = await there.start()
        await there.until_healthy(handle)
        process = psutil.Process(handle.pid)
        with anyio.move_on_after(6):
            await there.runner.wait(handle)
        assert process.is_running(), "the lease of a living gglib is renewed"
        machine.go_away()
        with anyio.fail_after(12):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                await anyio.sleep(0.05)
