"""The command line."""

from __future__ import annotations

import re

import attrs
import pytest

from gglib.domain.config import ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.errors import EngineCannot
from gglib.ports.engine import Engine
from gglib.testing.contracts.engine.kit import INTENTS, EnginePromises

__all__ = ["SpellingPromises"]

_PORT, _OTHER_PORT = 41_873, 52_984
_SECRET = "sk-nobody-may-see-this"  # noqa: S105 - what must not be found


class SpellingPromises(EnginePromises):
    """Intent becomes an argument vector: pure, whole, and without secrets."""

    async def test_command_is_an_argument_vector(
        self, engine: Engine, config: ServerConfig
    ) -> None:
        """Texts without NUL, a program first."""
        argv = engine.command(config, _PORT)

        assert isinstance(argv, list), "command() must return a list"
        assert all(isinstance(argument, str) for argument in argv), "arguments must be str"
        assert argv and argv[0], "the first argument must be a program"  # noqa: PT018
        assert not any("\0" in argument for argument in argv), "no argument may have a NUL"

    async def test_command_serves_the_port_it_is_given(
        self, engine: Engine, config: ServerConfig
    ) -> None:
        """That one, whatever the configuration asked for, and nothing else depends on it."""
        argv = engine.command(attrs.evolve(config, base_port=9000), _PORT)
        other = engine.command(config, _OTHER_PORT)

        digits = re.compile(rf"(?<!\d){_PORT}(?!\d)")
        assert any(digits.search(argument) for argument in argv), "the port must be in the command"
        assert [digits.sub(str(_OTHER_PORT), argument) for argument in argv] == other, (
            "another port must change nothing but the port"
        )

    async def test_command_does_not_open_the_server_to_the_network(
        self, engine: Engine, config: ServerConfig
    ) -> None:
        """Servers listen on 127.0.0.1, and are reached through the gateway."""
        words = " ".join(engine.command(config, _PORT))

        assert "0.0.0.0" not in words, "a server must listen on 127.0.0.1"  # noqa: S104

    async def test_command_is_pure(self, engine: Engine, config: ServerConfig) -> None:
        """The same input gives the same output; neither is shared with the engine."""
        same = attrs.evolve(config)
        first = engine.command(config, _PORT)
        kept = list(first)
        first.append("spoilt")

        assert engine.command(config, _PORT) == kept, "command() must be pure"
        engine.command(attrs.evolve(config, extra_args=("--other",)), _OTHER_PORT)
        assert engine.command(same, _PORT) == kept, "command() must not remember calls"
        assert config == same, "command() must leave its input as it is"

    @pytest.mark.parametrize(
        "extra", [("--last",), ("", "{port}", "ü 'x' \"y\"", "--", "\udcff"), ("--port", "1")]
    )
    async def test_extra_arguments_come_last_as_they_are(
        self, engine: Engine, config: ServerConfig, extra: tuple[str, ...]
    ) -> None:
        """After everything else, so that they win."""
        plain = engine.command(config, _PORT)

        argv = engine.command(attrs.evolve(config, extra_args=extra), _PORT)

        assert argv == [*plain, *extra], "config.extra_args must come last, as they are"

    async def test_no_secret_is_in_the_command(self, engine: Engine, config: ServerConfig) -> None:
        """Anybody may read a command line; the environment is where keys are."""
        names = {"SECRET", "GGLIB_SERVER_ID", engine.api_key_variable or "API_KEY"}
        secretive = attrs.evolve(config, environment=dict.fromkeys(names, _SECRET))

        argv = engine.command(secretive, _PORT)

        assert not any(_SECRET in argument for argument in argv), "no secret may be in the command"

    async def test_sampling_is_not_in_the_command(
        self, engine: Engine, config: ServerConfig
    ) -> None:
        """It is the request's; nor does a runner's business change the command."""
        others = attrs.evolve(
            config,
            inference=InferenceConfig(temperature=0.125),
            base_port=9000,
            engine=engine.name,
            environment={"A": "b"},
        )

        assert engine.command(others, _PORT) == engine.command(config, _PORT), (
            "what is no matter of engines must not change the command"
        )

    @pytest.mark.parametrize("field", INTENTS)
    async def test_intent_is_expressed_or_refused(
        self, engine: Engine, config: ServerConfig, field: str
    ) -> None:
        """Nothing that a user sets is dropped silently."""
        *needed, _ = INTENTS[field]
        before = attrs.evolve(config, **{name: INTENTS[field][name] for name in needed})
        wanted = attrs.evolve(config, **INTENTS[field])

        if field in self.expressible or field in self.required:
            plain = attrs.evolve(before, **{name: self.required[name] for name in self.required})
            assert engine.command(wanted, _PORT) != engine.command(plain, _PORT), (
                f"{field} is expressible, and must change the command"
            )
            return
        with pytest.raises(EngineCannot) as caught:
            engine.command(wanted, _PORT)
        assert caught.value.engine == engine.name, "EngineCannot.engine must be the engine's name"
        assert caught.value.field in {field, *needed}, "EngineCannot.field must be what was refused"
        assert caught.value.remedy, "EngineCannot.remedy must say what to do"

    async def test_refusal_leaves_the_engine_as_it_was(
        self, engine: Engine, config: ServerConfig
    ) -> None:
        """After an intent that it cannot express it serves the others as before."""
        before = engine.command(config, _PORT)
        for changes in INTENTS.values():
            try:
                engine.command(attrs.evolve(config, **changes), _PORT)
            except EngineCannot:
                continue

        assert engine.command(config, _PORT) == before, "command() must not remember calls"
