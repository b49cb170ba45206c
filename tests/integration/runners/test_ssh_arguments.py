"""What is said to the far machine arrives as it was said, whatever is in it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from support.far_machine import far_machine

from gglib.domain.config import ServerConfig
from gglib.errors import ConfigurationError, StartFailed
from gglib.testing.contexts import make_context
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.runners.ssh import open_ssh_runner

_COUNT, _BATCH = 10_000, 1_000
_PIECES = (
    *("'", '"', "\\", "\n", "\r", "\t", " ", "  ", "`", "``", "$()", "$(exit 7)", "`exit 7`"),
    *("$HOME", "${HOME}", "$((1+1))", "*", "?", "[a-z]", "~", "~root", "!", "!!", "#", ";", "&&"),
    *("|", ">", ">/dev/null", "<", "(", ")", "{", "}", "{a,b}", "=", "-", "--", "-n", "-e", "%s"),
    *(
        "%",
        "\\n",
        "\\'",
        "'\"'",
        "'\\''",
        "EOF",
        "\x01",
        "\x1b[31m",
        "\x1e",
        "\x7f",
        "é",
        "ß",
        "日本",
    ),
    *("ß", "日本", "\u2028", "🙂", "a", "b c", "end'", "'start", "\\\\", "\\\n"),
)
_DUMP = """
import json, os, sys
with open(sys.argv[1], "w") as file:
    json.dump([sys.argv[2:], os.environ["SAID"]], file)
"""


class Dumper(StubEngine):
    """Its servers write down the arguments that they get, and end."""

    def __init__(self, file: Path, arguments: list[str]) -> None:
        super().__init__()
        self._command = [sys.executable, "-I", "-S", "-c", _DUMP, str(file), *arguments]

    def command(self, config: ServerConfig, port: int) -> list[str]:
        """See ``Engine``."""
        del config, port
        return self._command


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is said does not depend on it."""
    return "asyncio"


async def test_ten_thousand_hostile_arguments_arrive_unchanged(tmp_path: Path) -> None:
    """Quotes, line ends, substitutions, patterns, Unicode; as arguments and in a variable."""
    chance = random.Random(1)
    said = [""] + [
        "".join(chance.choices(_PIECES, k=chance.randint(1, 12))) for _ in range(_COUNT - 1)
    ]
    (tmp_path / "box").mkdir()
    with far_machine(tmp_path / "box") as machine:
        for begin in range(0, _COUNT, _BATCH):
            batch, file = said[begin : begin + _BATCH], tmp_path / f"{begin}.json"
            variable = "".join(batch[:50])
            context = make_context(
                tmp_path,
                name="box",
                settings=machine.settings,
                engines={"stub": Dumper(file, batch)},
            )
            async with open_ssh_runner(context) as runner:
                config = ServerConfig(
                    model_id=1,
                    model_name='the model\'s "name" $(exit 7)',
                    model_path=Path("/a.gguf"),
                    engine="stub",
                    environment={"SAID": variable},
                )
                handle = await runner.start(config)
                assert handle.model_name == config.model_name
                assert await runner.wait(handle) == 0
            assert json.loads(file.read_text()) == [batch, variable]


async def test_what_no_argument_can_hold_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A NUL, and a variable whose name is none."""
    (tmp_path / "box").mkdir()
    with far_machine(tmp_path / "box") as machine:
        engine = Dumper(tmp_path / "never", ["a\0b"])
        context = make_context(
            tmp_path, name="box", settings=machine.settings, engines={"stub": engine}
        )
        config = ServerConfig(model_id=1, model_name="a", model_path=Path("/a.gguf"), engine="stub")
        async with open_ssh_runner(context) as runner:
            with pytest.raises(StartFailed, match="NUL"):
                await runner.start(config)
            engine = Dumper(tmp_path / "never", [])
            for name in ("A B", "1A", "A;exit"):
                evil = ServerConfig(
                    model_id=1,
                    model_name="a",
                    model_path=Path("/a.gguf"),
                    engine="stub",
                    environment={name: "x"},
                )
                with pytest.raises(StartFailed, match="name of a variable"):
                    await runner.start(evil)
            assert await runner.list_running() == []
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("host", ["-oProxyCommand=id", "", "a b", "box;id", "$(id)"])
async def test_host_that_would_be_an_option_or_a_command_is_refused(
    tmp_path: Path, host: str
) -> None:
    """Before ssh sees it."""
    context = make_context(tmp_path, name="box", settings={"host": host})
    with pytest.raises(ConfigurationError, match="host"):
        async with open_ssh_runner(context):
            pass
