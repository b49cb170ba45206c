"""What ``logs`` and ``past_servers`` promise."""

from __future__ import annotations

import anyio

from gglib.domain.handle import ProcessHandle
from gglib.testing.contracts.process_runner.behaviour import (
    COMPLAINTS,
    LAST_WORDS,
    OUTPUT,
    Behaviour,
)
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["OutputPromises"]


#: What a server says when it has been silent for a while, and for how long: real seconds.
_LATER = "and another thing"
_SILENCE_S = 0.15


class OutputPromises(RunnerPromises):
    """Output is kept, per server, in order. A runner without output yields nothing."""

    async def test_last_words_are_kept_after_the_end(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """They say why a start failed."""
        self.needs("keeps_output")
        handle = await kit.start(runner, Behaviour.DIES)
        await kit.until_gone(runner, handle)
        assert await kit.lines(runner, handle, 20) == list(LAST_WORDS), (
            "logs work for servers that have ended"
        )

    async def test_tail_is_the_last_lines(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """No more than were asked for, in their order."""
        self.needs("keeps_output")
        handle = await kit.start(runner, Behaviour.TALKS)
        await kit.until_healthy(runner, handle)
        everything = await kit.lines(runner, handle, 1000)
        assert everything[: len(OUTPUT)] == list(OUTPUT), "output is kept whole and in order"
        assert await kit.lines(runner, handle, 3) == everything[-3:], "tail=3 is the last three"
        assert await kit.lines(runner, handle, 0) == [], "tail=0 is nothing"

    async def test_both_streams_are_kept(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """What goes wrong is said on stderr."""
        self.needs("keeps_output")
        handle = await kit.start(runner, Behaviour.COMPLAINS)
        await kit.until_healthy(runner, handle)
        lines = await kit.lines(runner, handle, 1000)
        assert [line for line in lines if line in OUTPUT] == list(OUTPUT), "stdout is kept"
        assert [line for line in lines if line in COMPLAINTS] == list(COMPLAINTS), "stderr is kept"

    async def test_follower_is_told_what_is_printed_later(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """While the server runs, however long it was silent; once."""
        self.needs("keeps_output")
        handle = await kit.start(runner, Behaviour.TALKS)
        await kit.until_healthy(runner, handle)
        seen: list[str] = []

        async def follow() -> None:
            async for line in runner.logs(handle, tail=0, follow=True):
                seen.append(line)
                if line == _LATER:
                    await runner.stop(handle)

        with kit.patience("a follower is told of new lines while the server runs"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.sleep(_SILENCE_S)
                await self.say(kit, runner.inner, handle, _LATER)
        assert seen[:1] == [_LATER], "a follower is told of new lines, however late they come"
        assert seen.count(_LATER) == 1, "a follower is told every line once"

    async def test_followed_output_ends_with_the_server(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Every line once, until the server is gone."""
        self.needs("keeps_output")
        handle = await kit.start(runner, Behaviour.TALKS)
        seen: list[str] = []
        with kit.patience("following ends when the server does"):
            async for line in runner.logs(handle, tail=1000, follow=True):
                seen.append(line)
                if line == OUTPUT[-1]:
                    await runner.stop(handle)
        assert seen[: len(OUTPUT)] == list(OUTPUT), "following gives every line once, in order"

    async def test_outputs_of_two_servers_do_not_mix(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Nor do those of two servers of one model."""
        self.needs("keeps_output")
        talker = await kit.start(runner, Behaviour.TALKS)
        dead = await kit.start(runner, Behaviour.DIES)
        await kit.until_healthy(runner, talker)
        await kit.until_gone(runner, dead)
        assert await kit.lines(runner, dead, 1000) == list(LAST_WORDS), "logs are per server"
        assert LAST_WORDS[0] not in await kit.lines(runner, talker, 1000), "logs are per server"

    async def test_output_of_what_runs_on_is_read_by_the_next_opening(self, kit: RunnerKit) -> None:
        """It is kept where the data directory is."""
        self.needs("keeps_output", "outlive_runner")
        async with kit.open() as first:
            handle = await kit.start(first, Behaviour.TALKS)
            await kit.until_healthy(first, handle)
        async with kit.open() as second:
            lines = await kit.lines(second, handle, 1000)
            await second.stop(handle)
        assert lines[: len(OUTPUT)] == list(OUTPUT), "output outlives the opening"

    async def test_past_servers_are_the_ended_ones_newest_first(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Of that model, with handles that are good for ``logs``."""
        ended: list[ProcessHandle] = []
        for _ in range(2):
            handle = await kit.start(runner, Behaviour.DIES)
            await kit.until_gone(runner, handle)
            ended.append(handle)
            await kit.pause()
        await kit.start(runner)
        other = await kit.start(runner, Behaviour.DIES, name="beta")
        await kit.until_gone(runner, other)
        past = await runner.past_servers("alpha")
        ids = [handle.server_id for handle in past]
        expected = [handle.server_id for handle in reversed(ended)]
        assert ids == (expected if ids else []), (
            "past_servers are the model's ended ones, newest first, or nothing"
        )
        for handle in past:
            assert await kit.lines(runner, handle, 20) == list(LAST_WORDS), (
                "a past server's handle is good for its logs"
            )
