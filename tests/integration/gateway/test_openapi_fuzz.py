"""schemathesis over the gateway's own document: every answer is one that the document tells.

Real HTTP to a real gateway; behind it the mock runner's engine, which answers much as real ones do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import schemathesis_hooks

from gglib.testing import MockGateway, MockRunner, SystemClock, mock_gateway

#: Another process does most of the work, which takes long where others are at work, too.
pytestmark = pytest.mark.timeout(300)

KEY = "sk-fuzz"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched from anywhere."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


#: What is the engine's own to answer, or depends on more than a schema can say.
CONFIG = """
[[operations]]
include-tag = "Inference"
checks.positive_data_acceptance.enabled = false
# The mock engine has no HEAD.
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501"]
# Any method goes to an engine.
checks.unsupported_method.enabled = false

[[operations]]
# Fields that exclude each other, and pictures that have to be some.
include-operation-id = ["ollamaChat", "ollamaGenerate"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", "4xx"]

[[operations]]
# This gateway has no file.
include-operation-id = "reloadConfig"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]

[[operations]]
# What is a repository, only the hub knows, and here there is none.
include-operation-id = "pullModel"
checks.positive_data_acceptance.enabled = false
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]

[[operations]]
# It never ends.
include-operation-id = "streamEvents"
enabled = false
"""


def fuzz(folder: Path, *options: str, keys: tuple[str, ...] = ()) -> int:
    """Run schemathesis on a gateway, with its key or else its local token.

    Returns how many requests were sent; none of them may have found anything.
    """
    with (
        MockRunner(clock=SystemClock(), sockets=True) as runner,
        mock_gateway(folder / "home", runner, api_keys=keys) as gateway,
    ):
        gateway.add_model("qwen", aliases=["q"])
        gateway.add_model("org/small")
        done = run(gateway, folder, *options, token=keys[0] if keys else gateway.admin_token)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"([\d,]+) generated, ([\d,]+) passed", done.stdout)
    assert found is not None, done.stdout
    assert found[1] == found[2]
    return int(found[1].replace(",", ""))


def run(
    gateway: MockGateway, folder: Path, *options: str, token: str
) -> subprocess.CompletedProcess[str]:
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    hooks = Path(schemathesis_hooks.__file__)
    program = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)]
    return subprocess.run(
        [
            *(*program, "run", f"{gateway.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            *("--warnings", "off", "--request-timeout", "10", *options),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(hooks.parent), "SCHEMATHESIS_HOOKS": hooks.stem},
        check=False,
    )


#: Relayed as the other ones are.
LIKE_OTHERS = (
    r"^/(v1/)?(completions?|embed|rerank|messages|images|infill|.*token|apply)|speech|latio"
)


def test_answers_to_an_admin_are_documented(tmp_path: Path) -> None:
    """Whatever is asked, well or badly: a status, a type and a shape that the document has."""
    few = ("--max-examples", "2", "--exclude-path-regex", LIKE_OTHERS)
    assert fuzz(tmp_path, "--seed", "1", "--phases", "examples,coverage,fuzzing", *few) > 500


def test_answers_to_a_key_are_documented(tmp_path: Path) -> None:
    """It is no admin's; and who has none is not let in where the document wants one."""
    tags = ("--include-tag", "Models", "--include-tag", "Administration")
    assert fuzz(tmp_path, "--seed", "1", "--phases", "coverage", *tags, keys=(KEY,)) > 100


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_answers_are_documented_at_length(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Thousands of requests, to every route, and one after another as a program would send them."""
    assert fuzz(tmp_path, "--seed", "7", "--max-examples", "300", keys=keys) > 5000
