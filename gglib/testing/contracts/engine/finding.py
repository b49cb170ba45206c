"""What ``probe`` finds, and what is said when there is nothing."""

from __future__ import annotations

import re

import attrs
import pytest

from gglib.domain.config import ServerConfig
from gglib.errors import EngineNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib.testing.contracts.backends import CANCEL_AFTER, at_once, cancelled_after
from gglib.testing.contracts.engine.kit import EnginePromises, OpenEngine

__all__ = ["FindingPromises"]

_PORT = 41_873


class FindingPromises(EnginePromises):
    """An engine that is here is found; one that is not, with the ways to get it."""

    async def test_opened_engine_is_of_the_port(self, engine: Engine) -> None:
        """The factory's context manager gives an ``Engine``."""
        assert isinstance(engine, Engine), "bootstrap takes subclasses of Engine only"

    async def test_name_is_the_one_it_is_configured_under(
        self, engine: Engine, context: AdapterContext
    ) -> None:
        """Models and settings use that name, and no other."""
        assert engine.name == context.name, "name must be the context's"

    async def test_probe_says_what_was_found_and_how(self, engine: Engine) -> None:
        """A path is absolute and leads somewhere; the source is a word."""
        probe = await engine.probe()

        assert isinstance(probe, EngineProbe), "probe() must return an EngineProbe"
        assert probe.source, "EngineProbe.source must say how it was found"
        if probe.path is not None:
            assert probe.path.is_absolute(), "EngineProbe.path must be absolute"
            assert probe.path.exists(), "EngineProbe.path must lead to what was found"

    async def test_probe_repeats_itself(self, engine: Engine) -> None:
        """As long as nothing changes on disk, one after the other or ten at once."""
        first = await engine.probe()
        probes: list[EngineProbe] = []

        async def probe(_: int) -> None:
            probes.append(await engine.probe())

        await at_once(probe)

        assert probes == [first] * 10, "probe() must be safe to call often, and repeat itself"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_engine_works_after_a_cancelled_probe(
        self, open_engine: OpenEngine, context: AdapterContext, config: ServerConfig, steps: int
    ) -> None:
        """One that was given up does not spoil the next."""
        if not self.present:
            pytest.skip("present = False: this engine is not on this machine")
        async with open_engine(context) as engine:
            await cancelled_after(steps, engine.probe)
            await engine.probe()
            argv = engine.command(config, _PORT)
        assert argv, "an engine must work on after a cancelled probe()"

    async def test_missing_engine_is_reported_with_the_ways_to_get_it(
        self, missing_engine: OpenEngine | None, context: AdapterContext
    ) -> None:
        """Every time it is looked for: under its name, with a reason and what to do."""
        if missing_engine is None:
            pytest.skip("missing_engine is None: the engine cannot be hidden here")
        async with missing_engine(context) as engine:
            for _ in range(2):
                with pytest.raises(EngineNotFound) as caught:
                    await engine.probe()
                assert caught.value.engine == context.name, "EngineNotFound.engine is its name"
                assert caught.value.reason, "EngineNotFound.reason must say what was not found"
                assert caught.value.ways, "EngineNotFound.ways must say how to get it"
                assert all(caught.value.ways), "EngineNotFound.ways must say how to get it"

    async def test_engine_that_was_not_found_has_no_command(
        self, missing_engine: OpenEngine | None, context: AdapterContext, config: ServerConfig
    ) -> None:
        """Before ``probe``, and after one that failed."""
        if missing_engine is None or not self.needs_probe:
            pytest.skip("the engine cannot be hidden here, or needs to find nothing")
        async with missing_engine(context) as engine:
            for _ in range(2):
                with pytest.raises(EngineNotFound):
                    engine.command(config, _PORT)
                with pytest.raises(EngineNotFound):
                    await engine.probe()

    async def test_capabilities_are_told(self, engine: Engine) -> None:
        """The same every time, and no more than it can express."""
        capabilities = engine.capabilities

        assert isinstance(capabilities, EngineCapabilities), "capabilities must be its own type"
        assert engine.capabilities == capabilities, "capabilities must be the same every time"
        for can, field in (
            (capabilities.lora, "lora_adapters"),
            (capabilities.embeddings, "embeddings"),
            (capabilities.prompt_cache, "cache_ram_mib"),
        ):
            if can:
                assert field in self.expressible, f"who can, must have a way to express {field}"

    async def test_environment_maps_texts_to_texts(
        self, engine: Engine, config: ServerConfig
    ) -> None:
        """Names and values as the system takes them; pure, like all else."""
        secretive = attrs.evolve(config, environment={"A": "b"})
        variables = engine.environment(secretive)

        for name, value in variables.items():
            assert isinstance(name, str), "variables' names must be str"
            assert isinstance(value, str), "variables' values must be str"
            assert _is_variable(name), f"{name!r} cannot be a variable's name"
            assert "\0" not in value, "no variable may have a NUL"
        assert dict(engine.environment(secretive)) == dict(variables), "environment() must be pure"
        assert "GGLIB_SERVER_ID" not in variables, "a server's identity is the runner's to set"

    async def test_api_key_variable_is_a_variable_or_none(self, engine: Engine) -> None:
        """``None`` says that its servers take no key."""
        variable = engine.api_key_variable

        assert variable is None or _is_variable(variable), "api_key_variable must be a name"

    async def test_health_can_be_asked_for(self, engine: Engine) -> None:
        """A path below the server's address, and the statuses that mean ready."""
        assert engine.health_path.startswith("/"), "health_path must begin with '/'"
        assert not re.search(r"\s", engine.health_path), "health_path must be a path in a URL"
        assert engine.health_statuses, "some status must mean ready"
        assert all(100 <= status <= 599 for status in engine.health_statuses), (
            "health_statuses must be statuses of HTTP"
        )

    async def test_working_directory_is_absolute_or_none(self, engine: Engine) -> None:
        """``None`` says: the data directory."""
        directory = engine.working_directory

        assert directory is None or directory.is_absolute(), "working_directory must be absolute"


def _is_variable(name: str) -> bool:
    return bool(name) and not set("=\0") & set(name)
