"""What ``list_running``, ``adopt``, ``has_file``, ``devices`` and ``memory`` promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from gglib.errors import NotRunning
from gglib.testing.contracts.process_runner.behaviour import Behaviour
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["ListingPromises"]


class ListingPromises(RunnerPromises):
    """Every running server of this runner and data directory is listed, and no other."""

    async def test_nothing_runs_at_first(self, runner: PatientRunner) -> None:
        """A list, and an empty one."""
        assert await runner.list_running() == [], "a fresh data directory has no servers"

    async def test_running_servers_are_listed_oldest_first(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """As the handles that ``start`` returned, ready or not."""
        handles = []
        for behaviour in (Behaviour.READY, Behaviour.SILENT, Behaviour.LOADS):
            handles.append(await kit.start(runner, behaviour, name=f"a-{behaviour}"))
            await kit.pause()
        assert await runner.list_running() == handles, (
            "list_running returns the handles of all that run, oldest first"
        )

    async def test_dead_servers_are_not_listed(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """One that ended by itself is gone from the list."""
        dead = await kit.start(runner, Behaviour.DIES)
        alive = await kit.start(runner, name="beta")
        await kit.until_gone(runner, dead)
        assert await runner.list_running() == [alive], "only what runs is listed"

    async def test_servers_of_another_data_directory_are_not_listed(
        self, kit: RunnerKit, runner: PatientRunner, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Two gglibs do not see each other's servers."""
        await kit.start(runner)
        async with kit.open(data_dir=tmp_path_factory.mktemp("other")) as other:
            assert await other.list_running() == [], "servers belong to a data directory"

    async def test_servers_of_another_runner_are_not_listed(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """The same adapter may be configured twice."""
        await kit.start(runner)
        async with kit.open(name="second") as other:
            assert await other.list_running() == [], "servers belong to a runner, by its name"

    async def test_next_opening_finds_and_stops_what_was_left(self, kit: RunnerKit) -> None:
        """A crash of gglib loses no server."""
        self.needs("outlive_runner")
        async with kit.open() as first:
            handle = await kit.start(first)
            await kit.until_healthy(first, handle)
        async with kit.open() as second:
            assert await second.list_running() == [handle], (
                "servers that an earlier opening started are listed, with the same handle"
            )
            assert await second.is_running(handle), "a server outlives its runner"
            assert (await second.health(handle)).healthy, "its health is told as before"
            await second.stop(handle)
            assert not await second.is_running(handle), "the next opening can stop it"
            assert await second.list_running() == [], "a stopped server is not listed"

    async def test_running_server_is_adopted_and_a_dead_one_is_not(self, kit: RunnerKit) -> None:
        """``adopt`` raises NotRunning when no process has this identity."""
        self.needs("outlive_runner")
        async with kit.open() as first:
            handle = await kit.start(first)
            await kit.until_healthy(first, handle)
        async with kit.open() as second:
            await second.adopt(handle)
            assert await second.is_running(handle), "an adopted server runs on"
            await second.stop(handle)
            with pytest.raises(NotRunning):
                await second.adopt(handle)

    async def test_file_is_found_where_it_is(
        self, runner: PatientRunner, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """``has_file`` tells a file that is there from one that is not."""
        folder: Path = tmp_path_factory.mktemp("models")
        (folder / "there.gguf").touch()
        assert await runner.has_file(folder / "there.gguf"), "a file that is there is found"
        if self.knows_files:
            missing = await runner.has_file(folder / "missing.gguf")
            assert not missing, "a file that is not there is not found"

    async def test_memory_elsewhere_is_told_like_an_inventory_tells_it(
        self, runner: PatientRunner
    ) -> None:
        """``devices``: the machine's own first, each name once; or none, where they run here."""
        first, second = await runner.devices(), await runner.devices()
        assert (first is None) == (second is None), "devices() is None always, or never"
        if not first or not second:
            return
        names = [device.name for device in first]
        assert names == [device.name for device in second], "a device must keep its name"
        assert names[0] == "cpu", "the machine's own memory must come first"
        assert len(set(names)) == len(names), "names of devices must differ"
        assert all("/" not in name for name in names), "the runner's name is put before by gglib"

    async def test_machine_is_told_by_one_name(self, runner: PatientRunner) -> None:
        """``machine_id``: the same each time, or none."""
        first = await runner.machine_id()
        assert first != "", "a machine without an id tells None"
        assert await runner.machine_id() == first, "a machine keeps its id while it runs"

    async def test_memory_of_a_server_is_told_while_it_runs(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """``memory``: what its processes have, by devices that there are; or nothing."""
        handle = await kit.start(runner)
        await kit.until_healthy(runner, handle)
        told = await runner.memory(handle)
        if told is not None:
            assert told.resident_bytes > 0, "a running process has some memory"
            there = {device.name for device in await runner.devices() or ()}
            assert set(told.accelerators) <= there, "memory is told of devices that there are"
        await runner.stop(handle)
        assert await runner.memory(handle) is None, "a server that has ended has no memory"
