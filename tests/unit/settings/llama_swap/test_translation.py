"""A configuration of llama-swap, said in ours."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gglib.errors import ConfigurationError
from gglib.settings import load_settings
from gglib.settings.llama_swap import Translated, YamlFile, translate
from gglib.settings.writing import as_toml, write_settings

#: Every key that llama-swap's manual has, of a whole file and of a model.
EVERYTHING = """\
healthCheckTimeout: 300
logLevel: debug
logTimeFormat: rfc3339
logToStdout: both
store: {path: a.sqlite}
metricsMaxInMemory: 5
captureBuffer: 5
ui: {activity: {session_id: [X-A]}}
performance: {disabled: true, every: 15s}
startPort: 9000
sendLoadingState: true
includeAliasesInList: true
globalTTL: 900
unloadTimeout: 20
macros:
  server: /opt/llama/llama-server --port ${PORT}
  size: 4096
  args: --ctx-size ${size}
  folder: ${env.MODELS}
apiKeys: [sk-one, "${env.KEY}"]
tailcat: {allow: [x]}
upstream: {ignorePaths: ['x']}
profiles: {coding: {pins: {a: big}}}
selectors: {any: {strategy: warm, targets: [big]}}
peers: {other: {proxy: http://192.168.1.2, models: [m]}}
models:
  big:
    macros: {size: 16384, warmth: 0.5}
    cmd: |
      # the first ${nobody}
      ${server}
      -m ${folder}/big.gguf \\
      ${args} --temp ${warmth} --jinja --verbose
    name: The big one
    description: It is big
    env: ["CUDA_VISIBLE_DEVICES=0,1"]
    proxy: http://localhost:${PORT}
    checkEndpoint: /health
    ttl: 60
    unloadTimeout: 5
    compat: {ignoreWebsockets: true}
    useModelName: other
    filters:
      stripParams: "top_p, model, top_k"
      setParams: {seed: 1, nested: {a: ["${warmth}"]}}
      setParamsByID:
        "${MODEL_ID}": {effort: medium}
        "${MODEL_ID}:high": {effort: high}
        elsewhere: {effort: low}
    aliases: [gpt-4o-mini, {id: second, name: x, unlisted: true}]
    metadata: {port: "${PORT}"}
    concurrencyLimit: 3
    sendLoadingState: false
    timeouts: {connect: 1}
    capabilities: {tools: true}
    unlisted: true
  small:
    cmd: llama-server --port ${PORT} -m small.gguf -ngl 0
    ttl: -1
    concurrencyLimit: 0
  vllm:
    cmd: vllm serve --served-model-name org/model --port ${PORT} --json '{"a":1}'
    cmdStop: docker stop ${MODEL_ID}
    useModelName: org/model
    checkEndpoint: /ready
    env: [A=b=c]
  fixed:
    cmd: my-server
    proxy: http://127.0.0.1:8999
    ttl: 0
hooks: {on_startup: {preload: [big, vllm], profile: coding}}
routing:
  router:
    use: group
    settings:
      groups:
        chat: {members: [big, small], swap: true, exclusive: false}
        always: {members: [vllm], persistent: true}
      matrix: {sets: {a: big}}
  scheduler: {use: fifo, settings: {fifo: {priority: {big: 10}}}}
"""


def translated(tmp_path: Path, text: str, **environ: str) -> Translated:
    """Return what a configuration comes to."""
    path = tmp_path / "llama-swap.yaml"
    path.write_text(textwrap.dedent(text))
    return translate(YamlFile.read(path), environ)


def left(found: Translated) -> dict[str, str]:
    """Return what is left out, and why, by key."""
    return {each.key: each.why for each in found.left_out}


def loads(tmp_path: Path, found: Translated) -> Any:
    """Return the settings that a gateway would have."""
    path = tmp_path / "gglib.toml"
    assert write_settings(path, as_toml(found.settings), replace=True)
    return load_settings(flags={"config": path}, environ={}).settings


def test_everything_that_can_be_said_is(tmp_path: Path) -> None:
    """Every documented key, in one file."""
    found = translated(tmp_path, EVERYTHING, MODELS="/models", KEY="sk-two")
    assert found.settings["gateway"] == {
        "start_timeout_s": 300,
        "loading_state": True,
        "api_keys": ["sk-one", "sk-two"],
    }
    assert found.settings["pool"] == {"ttl_s": 900, "warmup": ["big", "org/model"]}
    assert found.settings["routing"] == {
        "planner": "groups",
        "groups": {
            "chat": {"members": ["big", "small"], "swap": True, "exclusive": False},
            "always": {"members": ["org/model"], "persistent": True},
        },
    }
    assert found.settings["engines"] == {
        "llama-server": {"path": "/opt/llama/llama-server"},
        "vllm": {
            "command": [
                "vllm", "serve", "--served-model-name", "org/model", "--port", "{port}",
                "--json", '{{"a":1}}',
            ],
            "health_path": "/ready",
            "environment": {"A": "b=c"},
        },
        "fixed": {"command": ["my-server"]},
    }  # fmt: skip
    models = found.settings["models"]
    assert models["big"] == {
        "path": "/models/big.gguf",
        "context_size": 16384,
        "jinja": True,
        "extra_args": ["--verbose"],
        "environment": {"CUDA_VISIBLE_DEVICES": "0,1"},
        "inference": {"temperature": 0.5},
        "strip": ["top_p", "top_k"],
        "profiles": {"high": {"set": {"effort": "high"}}, "elsewhere": {"set": {"effort": "low"}}},
        "set": {"seed": 1, "nested": {"a": [0.5]}, "effort": "medium"},
        "aliases": ["gpt-4o-mini", "second"],
        "ttl_s": 60,
        "concurrency_limit": 3,
        "priority": 10,
    }
    assert models["small"] == {"path": str(tmp_path / "small.gguf"), "gpu_layers": 0}
    assert models["org/model"] == {"path": str(tmp_path), "engine": "vllm", "aliases": ["vllm"]}
    assert models["fixed"] == {
        "path": str(tmp_path), "engine": "fixed", "port": 8999, "ttl_s": 0,
    }  # fmt: skip
    settings = loads(tmp_path, found)
    assert set(settings.models) == {"big", "small", "org/model", "fixed"}
    assert (tmp_path / "gglib.toml").stat().st_mode & 0o777 == 0o600


def test_everything_else_is_named_with_its_line(tmp_path: Path) -> None:
    """No key is dropped in silence."""
    found = translated(tmp_path, EVERYTHING, MODELS="/models", KEY="sk-two")
    lines = EVERYTHING.splitlines()
    for each in found.left_out:
        assert each.line is not None
        assert each.key.rpartition(".")[2] in lines[each.line - 1], each
    assert not any(each.is_model for each in found.left_out)
    assert left(found).keys() == {
        "logLevel", "logTimeFormat", "logToStdout", "store", "metricsMaxInMemory",
        "captureBuffer", "ui", "performance", "startPort", "includeAliasesInList",
        "unloadTimeout", "tailcat", "upstream", "profiles", "selectors", "peers",
        "models.big.cmd", "models.big.name", "models.big.description",
        "models.big.unloadTimeout", "models.big.compat", "models.big.filters",
        "models.big.metadata", "models.big.sendLoadingState", "models.big.timeouts",
        "models.big.capabilities", "models.big.unlisted", "models.small.cmd",
        "models.vllm.cmdStop", "hooks.on_startup.profile",
        "routing.router.settings.matrix",
    }  # fmt: skip


def test_one_model_at_a_time_is_what_it_does_untold(tmp_path: Path) -> None:
    """As llama-swap does without groups; and more models than we have places for by default."""
    models = "\n".join(f"  m{n}: {{cmd: 'llama-server -m m --port ${{PORT}}'}}" for n in range(7))
    found = translated(tmp_path, f"models:\n{models}\n")
    assert found.settings["routing"] == {"planner": "exclusive"}
    assert found.settings["pool"] == {"max_size": 7}


def test_legacy_groups_and_matrix_stand_at_the_top(tmp_path: Path) -> None:
    """As older files have them."""
    models = "models:\n  a: {cmd: llama-server -m a}\n  b: {cmd: llama-server -m b}\n"
    groups = translated(tmp_path, models + "groups: {g: {members: [a, b], swap: false}}\n")
    assert groups.settings["routing"]["groups"] == {"g": {"members": ["a", "b"], "swap": False}}
    matrix = translated(
        tmp_path, models + "matrix: {vars: {x: a}, evict_costs: {x: 9}, sets: {s: x & b, t: b}}\n"
    )
    assert matrix.settings["routing"] == {
        "planner": "matrix",
        "matrix": {"sets": [["a", "b"], ["b"]], "costs": {"a": 9}},
    }


def test_several_binaries_are_several_engines(tmp_path: Path) -> None:
    """Each model keeps the one that it was made for."""
    found = translated(
        tmp_path,
        """\
        models:
          a: {cmd: /new/llama-server -m a}
          b: {cmd: /old/llama-server -m b}
          c: {cmd: /new/llama-server -m c}
        """,
    )
    assert found.settings["engines"] == {
        "llama-server": {"path": "/new/llama-server"},
        "llama-server-2": {"kind": "llama-server", "path": "/old/llama-server"},
    }
    engines = {name: model.get("engine") for name, model in found.settings["models"].items()}
    assert engines == {"a": None, "b": "llama-server-2", "c": None}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("{cmd: llama-server -hf org/repo}", "names no model file"),
        ("{cmd: 'llama-server -m ${nobody}'}", "no macro 'nobody'"),
        ("{cmd: 'llama-server -m ${env.GGLIB_NOT_SET}'}", "is not set"),
        ('{cmd: "llama-server -m \'a"}', "cannot be read"),
        ("{cmd: ''}", "its cmd is empty"),
        ("{cmd: [a]}", "it has no cmd"),
        ("{}", "it has no cmd"),
        ("7", "not a table"),
        ("{cmd: my-server}", "no proxy"),
        ("{cmd: my-server, proxy: 'http://10.0.0.1:80'}", "not a server on this machine"),
        ("{cmd: my-server, proxy: 'http://[::1'}", "not a URL"),
        ("{cmd: llama-server -m a --port 99999}", "not a port"),
        ("{cmd: llama-server -m a --port 80, proxy: 'http://localhost:81'}", "different ports"),
        ("{cmd: 'my-server ${PORT}', useModelName: 'a\\tb'}", "expected"),
    ],
)
def test_model_that_cannot_be_served_so_is_named(tmp_path: Path, model: str, why: str) -> None:
    """With its line and the reason; the others are carried over."""
    text = f"models:\n  good: {{cmd: llama-server -m g}}\n  odd: {model}\n"
    found = translated(tmp_path, text)
    assert set(found.settings["models"]) == {"good"}
    (missing,) = [each for each in found.left_out if each.is_model]
    assert missing.line == 3
    assert why in missing.why
    assert "'odd'" in missing.why


WORDS = st.sampled_from(
    ["a", "b", "a:b", "${PORT}", "${x}", "llama-server", "-m", "--port", "80", "../..", "\0", "é"]
)
TEXTS = st.lists(WORDS, max_size=6).map(" ".join) | st.text(max_size=8)
LEAVES = TEXTS | st.integers() | st.floats() | st.booleans() | st.none()
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "cmd",
    "proxy",
    "checkEndpoint",
    "ttl",
    "useModelName",
    "filters",
    "aliases",
    "env",
    "macros",
    "concurrencyLimit",
    "name",
]
MODEL = st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5)
MODELS = st.dictionaries(
    TEXTS,
    MODEL | st.builds(lambda more: {"cmd": "llama-server -m a", **more}, MODEL) | ANYTHING,
    max_size=3,
)
SETS = st.fixed_dictionaries(
    {}, optional={"vars": ANYTHING, "sets": ANYTHING, "evict_costs": ANYTHING}
)
FILES = st.fixed_dictionaries(
    {"models": MODELS | ANYTHING},
    optional={
        "macros": ANYTHING,
        "groups": ANYTHING,
        "matrix": SETS | ANYTHING,
        "hooks": ANYTHING,
        "routing": ANYTHING,
        "apiKeys": ANYTHING,
        "globalTTL": ANYTHING,
        "healthCheckTimeout": ANYTHING,
        "sendLoadingState": ANYTHING,
    },
)


@given(FILES)
@settings(max_examples=150)
def test_whatever_a_file_says_it_becomes_settings_that_load(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    """Or it is no YAML. Nothing crashes, and what was carried over is right."""
    folder = tmp_path_factory.mktemp("any", numbered=True)
    path = folder / "llama-swap.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    try:
        file = YamlFile.read(path)
    except ConfigurationError:
        return
    found = translate(file, {})
    assert set(loads(folder, found).models) == set(found.settings.get("models", {}))
