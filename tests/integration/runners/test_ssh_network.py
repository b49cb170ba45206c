"""A line that falls silent is not one that is cut: nobody is told, and things may come late."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from support.far_machine import FarMachine, far_machine
from support.far_network import FarNetwork
from support.far_runner import RETURN_S, Opener, carriers_of, nothing_left, opener, until

from gglib.domain.handle import ProcessHandle
from gglib.errors import NodeUnreachable, NotRunning

#: One connection there: sshd's process, the one that keeps it, the shell.
ONE_LINE = 3
CHAT = "/v1/chat/completions"


@pytest.fixture
def anyio_backend() -> str:
    """One loop: the contract runs on both."""
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path, network: FarNetwork) -> Iterator[FarMachine]:
    """Give the far machine of the network; nothing may be left running on it."""
    with far_machine(tmp_path / "box", network) as machine, nothing_left(tmp_path):
        yield machine


@pytest.fixture
def open_there(machine: FarMachine, tmp_path: Path) -> Opener:
    """Return what opens a runner of servers on the machine."""
    return opener(machine, tmp_path)


async def test_silence_that_ends_before_it_is_noticed_only_delays(
    network: FarNetwork, machine: FarMachine, open_there: Opener
) -> None:
    """A start, a stop and a question wait; the line is the same one, and nothing is done twice."""
    async with open_there() as there:
        lasting, ending = await there.start("lasting"), await there.start("ending")
        await there.until_healthy(lasting)
        masters = machine.masters()
        started: list[ProcessHandle] = []
        answers: list[bytes] = []

        async def listen() -> None:
            answers.append(await there.post(lasting, CHAT, b'{"stream": true}'))

        async def start() -> None:
            started.append(await there.start("late"))

        network.fall_silent()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            tasks.start_soon(listen)
            tasks.start_soon(there.runner.stop, ending)
            tasks.start_soon(there.runner.is_running, lasting)
            await anyio.sleep(1)
            assert started == answers == []
            network.speak()
            tasks.cancel_scope.deadline = anyio.current_time() + RETURN_S
        assert not tasks.cancel_scope.cancel_called
        assert b"[DONE]" in answers[0]
        assert machine.masters() == masters
        await there.until_healthy(lasting)
        assert await there.runner.list_running() == [lasting, *started]
        assert len(carriers_of(there.folder)) == 2


async def test_silence_that_lasts_is_told_and_nothing_is_lost_or_left(
    network: FarNetwork, machine: FarMachine, open_there: Opener
) -> None:
    """Who watches is told soon; what was begun in it ends as it was wished, later."""
    async with open_there(connect_timeout_s=1) as there:
        lasting, ending = await there.start("lasting"), await there.start("ending")
        await there.until_healthy(lasting)

        async def listen() -> None:
            heard = await there.post(lasting, CHAT, b'{"stream": true, "pause_after": 1}')
            assert b"data: " in heard
            assert b"[DONE]" not in heard

        async def is_asked() -> bool:
            return there.asked > 0

        async def fail_to_start() -> None:
            with pytest.raises(NodeUnreachable):
                await there.start("late")

        async def fail_to_stop() -> None:
            with pytest.raises(NodeUnreachable):
                await there.runner.stop(ending)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await until(is_asked)
            # What the stub said to that is here before what it says to this.
            assert (await there.runner.health(lasting)).healthy
            network.fall_silent()
            tasks.start_soon(fail_to_start)
            tasks.start_soon(fail_to_stop)
            with anyio.fail_after(RETURN_S):
                health = await there.runner.health(lasting)
            assert health.is_out_of_reach
        network.speak()

        async def only_it_runs() -> bool:
            return [each.pid for each in carriers_of(there.folder)] == [lasting.pid]

        with anyio.fail_after(RETURN_S):
            await there.until_healthy(lasting)
            await until(only_it_runs)
        assert await there.runner.list_running() == [lasting]
        assert len(machine.sessions()) == ONE_LINE, "who carried the old line has ended"


async def test_start_that_arrives_after_it_was_given_up_starts_nothing(
    network: FarNetwork, machine: FarMachine, open_there: Opener
) -> None:
    """It lay in the buffers of a line that is gone, and nobody here waits for it any more."""
    async with open_there(connect_timeout_s=1) as there:
        await there.runner.list_running()
        old = machine.sessions()
        network.fall_silent()

        async def fail_to_start() -> None:
            with pytest.raises(NodeUnreachable):
                await there.start()

        async def is_asked() -> bool:
            return bool(there.engine.ports)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_to_start)
            await until(is_asked)
            await anyio.wait_all_tasks_blocked()
            machine.cut()
        network.speak()

        async def old_line_is_gone() -> bool:
            return not any(each.is_running() for each in old)

        # Without anybody's asking: it connects again to see to what it could not.
        with anyio.fail_after(RETURN_S):
            await until(old_line_is_gone)
        assert carriers_of(there.folder) == []
        assert await there.runner.list_running() == []


async def test_machine_that_was_restarted_has_none_of_its_servers(
    machine: FarMachine, open_there: Opener
) -> None:
    """They are known by its boot: whatever has their pids now is not theirs, and not touched."""
    async with open_there() as there:
        handle = await there.start()
        await there.until_healthy(handle)
        machine.restart()
        (identity,) = machine.folder.glob("far/servers/*/*/identity")
        boot_id, _, _, boot_time = identity.read_text().split()
        stranger = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        with anyio.fail_after(RETURN_S):
            assert await there.runner.wait(handle) is None
        assert not await there.runner.is_running(handle)
        assert await there.runner.list_running() == []
        for ask in (there.runner.health, there.runner.stop, there.runner.adopt):
            with pytest.raises(NotRunning):
                await ask(handle)
        identity.write_text(f"{boot_id} {os.getpid()} {stranger} {boot_time}\n")
        assert await there.runner.list_running() == []
        again = await there.start()
        with anyio.fail_after(RETURN_S):
            await there.until_healthy(again)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_silences_of_any_length_end_in_time(
    network: FarNetwork, machine: FarMachine, open_there: Opener
) -> None:
    """Whatever ssh and TCP were waiting for; by a link that is down, and by one that seems well."""
    chance = random.Random(7)
    longest_s = 0.0
    async with open_there(connect_timeout_s=10) as there:
        handle = await there.start()
        await there.until_healthy(handle)
        for turn in range(24):
            end, begin = (
                (network.speak, network.fall_silent) if turn % 2 else (network.plug, network.unplug)
            )
            begin()
            with anyio.move_on_after(chance.uniform(0, 30)):
                while True:
                    await there.runner.health(handle)
                    await anyio.sleep(0.1)
            end()
            began = time.monotonic()
            await there.until_healthy(handle)
            longest_s = max(longest_s, time.monotonic() - began)
            assert longest_s < RETURN_S, turn
        print(f"ready again within {longest_s:.2f} s")
        assert await there.runner.list_running() == [handle]
        assert len(machine.sessions()) == ONE_LINE
