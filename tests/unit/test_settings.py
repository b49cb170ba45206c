"""Settings: layers, strictness, and where each value comes from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS
from gglib.errors import ConfigurationError
from gglib.settings import GatewaySettings, LoadedSettings, ServingSettings, load_settings


def write(folder: Path, text: str, name: str = "gglib.toml") -> Path:
    """Write a settings file, private to its owner."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    path.chmod(0o600)
    return path


def load(
    folder: Path,
    text: str | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Load with ``folder`` as the data directory, and ``text`` as its file."""
    if text is not None:
        write(folder, text)
    return load_settings(flags={"data_dir": folder, **(flags or {})}, environ=environ or {})


def failure(folder: Path, text: str, **more: Any) -> ConfigurationError:
    """Return the error that ``text`` leads to."""
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text, **more)
    return caught.value


def test_nothing_said_gives_the_defaults(tmp_path: Path) -> None:
    """Without flags, variables and file, everything is as documented."""
    loaded = load(tmp_path)
    assert loaded.settings.gateway == GatewaySettings()
    assert loaded.settings.config_file is None
    assert loaded.settings.data_dir == tmp_path
    assert loaded.settings.serving == ServingSettings(runner="local", engine="")
    assert not (loaded.settings.models or loaded.settings.engines or loaded.settings.runners)
    assert not loaded.settings.sources
    assert loaded.sources["serving.runner"] == loaded.sources["serving.engine"] == "default"
    assert {loaded.sources[f"gateway.{field.name}"] for field in attrs.fields(GatewaySettings)} == {
        "default"
    }


def test_example_of_the_specification_is_understood(tmp_path: Path) -> None:
    """The sections that exist now carry what they say."""
    settings = load(
        tmp_path,
        """
        [gateway]
        host = "127.0.0.1"
        port = 8081

        [engines.stub]                # a `command` engine
        command = ["python3", "/srv/stub.py", "--port", "{port}", "--name", "{model_name}"]
        health_path = "/health"

        [runners.local]
        grace_s = 5

        [models.alpha]
        path = "/srv/models/alpha.gguf"
        engine = "stub"
        aliases = ["a"]
        context_size = 8192
        concurrency_limit = 10
        replicas = 2
        """,
    ).settings
    assert settings.gateway.port == 8081
    assert settings.engines["stub"]["health_path"] == "/health"
    assert settings.runners["local"] == {"grace_s": 5}
    alpha = settings.models["alpha"]
    assert (alpha.path, alpha.engine, alpha.aliases) == (
        Path("/srv/models/alpha.gguf"),
        "stub",
        ("a",),
    )
    assert alpha.server == {"context_size": 8192}
    assert (alpha.concurrency_limit, alpha.replicas) == (10, 2)


LAYERS = [
    ({}, {}, "", 8080, "default"),
    ({}, {}, "[gateway]\nport = 1", 1, "file {file}:2"),
    ({}, {"GGLIB_GATEWAY_PORT": "2"}, "[gateway]\nport = 1", 2, "environment GGLIB_GATEWAY_PORT"),
    ({"gateway.port": 3}, {"GGLIB_GATEWAY_PORT": "2"}, "[gateway]\nport = 1", 3, "flag --port"),
    ({}, {"GGLIB_GATEWAY_PORT": ""}, "[gateway]\nport = 1", 1, "file {file}:2"),
]


@pytest.mark.parametrize(("flags", "environ", "text", "port", "source"), LAYERS)
def test_stronger_layer_wins_and_is_named(
    tmp_path: Path,
    flags: dict[str, Any],
    environ: dict[str, str],
    text: str,
    port: int,
    source: str,
) -> None:
    """Flags over environment over file over defaults; the source tells which it was."""
    loaded = load(tmp_path, text, flags=flags, environ=environ)
    assert loaded.settings.gateway.port == port
    assert loaded.sources["gateway.port"] == source.format(file=tmp_path / "gglib.toml")


@pytest.mark.parametrize(
    ("flags", "environ", "runner", "source"),
    [
        ({}, {}, "ssh", "file {file}:2"),
        ({}, {"GGLIB_SERVING_RUNNER": "ray"}, "ray", "environment GGLIB_SERVING_RUNNER"),
        ({"serving.runner": "me"}, {"GGLIB_SERVING_RUNNER": "ray"}, "me", "flag --runner"),
    ],
)
def test_layers_of_serving_are_those_of_the_gateway(
    tmp_path: Path, flags: dict[str, Any], environ: dict[str, str], runner: str, source: str
) -> None:
    """A section is a section; neither takes what is the other's."""
    loaded = load(tmp_path, "[serving]\nrunner = 'ssh'", flags=flags, environ=environ)
    assert loaded.settings.serving == ServingSettings(runner=runner)
    assert loaded.settings.gateway == GatewaySettings()
    assert loaded.sources["serving.runner"] == source.format(file=tmp_path / "gglib.toml")


def test_serving_is_documented_with_its_defaults() -> None:
    """A row of the reference for each of its keys."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    section = page.read_text().partition("\n## [serving]\n")[2].partition("\n## ")[0]
    for field in attrs.fields(ServingSettings):
        assert f'| `{field.name}` | text | `"{field.default}"` |' in section


def test_sections_of_sources_are_kept_for_their_adapters(tmp_path: Path) -> None:
    """As plain data, with the line of each key."""
    loaded = load(tmp_path, "[sources.zoo]\nkind = 'attic'\nkeys = [1]\n[sources.'a.b']\n")
    assert loaded.settings.sources == {"zoo": {"kind": "attic", "keys": [1]}, "a.b": {}}
    assert loaded.sources["sources.zoo.keys"] == f"file {tmp_path / 'gglib.toml'}:3"
    other = load(tmp_path, "[sources.file]\nkind = 'better'\n")
    assert other.settings.sources["file"] == {"kind": "better"}


def test_source_of_a_declared_value_is_its_line(tmp_path: Path) -> None:
    """`config show` can name the line of everything the file says."""
    path = tmp_path / "gglib.toml"
    sources = load(tmp_path, '\n[models."qwen:7b"]\npath = "q"\n\nmlock = true\n').sources
    assert sources['models."qwen:7b".path'] == f"file {path}:3"
    assert sources['models."qwen:7b".mlock'] == f"file {path}:5"


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("HOST", "::1", {"host": "::1"}),
        ("QUEUE_LIMIT", "7", {"queue_limit": 7}),
        ("KEEP_ALIVE_S", "1.5", {"keep_alive_s": 1.5}),
        ("INSECURE", "Yes", {"insecure": True}),
        ("INSECURE", "0", {"insecure": False}),
        ("SILENCE_TIMEOUT_S", "none", {"silence_timeout_s": None}),
        ("SILENCE_TIMEOUT_S", "0", {"silence_timeout_s": None}),
        ("API_KEYS", "one, two,", {"api_keys": ("one", "two")}),
        ("ALLOWED_HOSTS", "a.example", {"allowed_hosts": ("a.example",)}),
    ],
)
def test_variable_is_read_by_its_fields_kind(
    tmp_path: Path, variable: str, text: str, expected: dict[str, Any]
) -> None:
    """Text becomes the number, truth or list that the field holds."""
    gateway = load(tmp_path, environ={f"GGLIB_GATEWAY_{variable}": text}).settings.gateway
    assert gateway == GatewaySettings(**expected)


@pytest.mark.parametrize(
    ("environ", "source", "part"),
    [
        (
            {"GGLIB_GATEWAY_PORT": "http"},
            "GGLIB_GATEWAY_PORT",
            "'http'; expected an integer from 0",
        ),
        ({"GGLIB_GATEWAY_PORT": "70000"}, "GGLIB_GATEWAY_PORT", "70000; expected"),
        ({"GGLIB_GATEWAY_INSECURE": "maybe"}, "GGLIB_GATEWAY_INSECURE", "expected true or false"),
        ({"GGLIB_GATEWAY_KEEP_ALIVE_S": "nan"}, "GGLIB_GATEWAY_KEEP_ALIVE_S", "above 0"),
        ({"GGLIB_GATEWAY_KEEP_ALIVE_S": "none"}, "GGLIB_GATEWAY_KEEP_ALIVE_S", "'none'"),
        ({"GGLIB_GATEWAY_PROT": "1"}, "environment", "did you mean 'GGLIB_GATEWAY_PORT'?"),
        ({"GGLIB_GATEWAY_API_KEY": "s"}, "environment", "did you mean 'GGLIB_GATEWAY_API_KEYS'?"),
        ({"GGLIB_GATEWAY_port": "1"}, "environment", "unknown variable 'GGLIB_GATEWAY_port'"),
        ({"GGLIB_SERVING_RUNER": "1"}, "environment", "did you mean 'GGLIB_SERVING_RUNNER'?"),
        ({"GGLIB_SERVING_ENGINE": "a\0b"}, "GGLIB_SERVING_ENGINE", "serving.engine is 'a"),
        ({"GGLIB_HOME": "a\0b"}, "GGLIB_HOME", "is not a path"),
        ({"GGLIB_HOME": "~no-such-user-here/x"}, "GGLIB_HOME", "home"),
        ({"GGLIB_CONFIG": "/no/such/file.toml"}, "/no/such/file.toml", "no such file"),
    ],
)
def test_wrong_variable_is_named(environ: dict[str, str], source: str, part: str) -> None:
    """An error names the variable, its value and what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(flags={}, environ=environ)
    assert caught.value.source == source
    assert part in str(caught.value)


def test_variables_of_other_parts_are_left_alone(tmp_path: Path) -> None:
    """Engines and servers read variables of their own."""
    environ = {
        "GGLIB_LLAMA_SERVER": "/bin/x",
        "GGLIB_SERVER_ID": "1",
        "GGLIB_REQUIRE": "engine",
        "HOME": "/",
    }
    assert load(tmp_path, environ=environ).settings.gateway == GatewaySettings()


def test_wrong_flag_is_named(tmp_path: Path) -> None:
    """A flag's error names the flag as it was typed."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, flags={"gateway.queue_limit": -1})
    assert str(caught.value) == (
        "--queue-limit: gateway.queue_limit is -1; expected an integer of 0 or more"
    )


def test_unknown_flag_is_refused(tmp_path: Path) -> None:
    """A flag that sets nothing is a mistake, not a no-op."""
    with pytest.raises(ConfigurationError, match=r"unknown key 'gateway\.prt'"):
        load(tmp_path, flags={"gateway.prt": 1})


def test_data_directory_comes_from_flag_then_variable_then_platform(tmp_path: Path) -> None:
    """--data-dir over GGLIB_HOME over the platform's own place."""
    environ = {"GGLIB_HOME": str(tmp_path / "variable")}
    flags = {"data_dir": tmp_path / "flag"}
    by_flag = load_settings(flags=flags, environ=environ)
    by_variable = load_settings(flags={}, environ=environ)
    by_default = load_settings(flags={}, environ={"GGLIB_HOME": ""})
    assert (by_flag.settings.data_dir, by_flag.sources["data_dir"]) == (
        tmp_path / "flag",
        "flag --data-dir",
    )
    assert (by_variable.settings.data_dir, by_variable.sources["data_dir"]) == (
        tmp_path / "variable",
        "environment GGLIB_HOME",
    )
    assert by_default.settings.data_dir.name == "gglib"
    assert by_default.sources["data_dir"] == "default"


def test_data_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered does not depend on the folder of the day, or on the tilde."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_settings(flags={"data_dir": "d"}, environ={}).settings.data_dir == tmp_path / "d"
    found = load_settings(flags={}, environ={"GGLIB_HOME": "~/d"}).settings.data_dir
    assert found == tmp_path / "home" / "d"


def test_file_comes_from_flag_then_variable_then_data_directory(tmp_path: Path) -> None:
    """--config over GGLIB_CONFIG over gglib.toml; the others are not read."""
    by_flag = write(tmp_path, "[gateway]\nport = 1", "flag.toml")
    by_variable = write(tmp_path, "[gateway]\nport = 2", "variable.toml")
    environ = {"GGLIB_CONFIG": str(by_variable)}
    found = load(tmp_path, "broken", flags={"config": by_flag}, environ=environ)
    assert (found.settings.gateway.port, found.settings.config_file) == (1, by_flag)
    found = load(tmp_path, environ=environ)
    assert (found.settings.gateway.port, found.settings.config_file) == (2, by_variable)
    found = load(tmp_path, "[gateway]\nport = 3")
    assert (found.settings.gateway.port, found.settings.config_file) == (
        3,
        tmp_path / "gglib.toml",
    )


def test_paths_of_models_belong_to_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths start where the file is; the tilde is a home; absolute ones stay."""
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = load(
        tmp_path,
        """
        models.a = { path = "sub/a.gguf", mmproj_path = "p.gguf", slot_save_path = "/kv" }
        models.b.path = "~/b.gguf"
        """,
    ).settings
    assert settings.models["a"].path == tmp_path / "sub/a.gguf"
    assert settings.models["a"].server == {
        "mmproj_path": str(tmp_path / "p.gguf"),
        "slot_save_path": "/kv",
    }
    assert settings.models["b"].path == Path("/home/somebody/b.gguf")


def test_every_server_field_may_be_declared(tmp_path: Path) -> None:
    """Each field that a model may set for its servers is a key of its table."""
    text = """
        [models.a]
        path = "a"
        base_port = 9000
        port = 9001
        context_size = 1
        gpu_layers = 0
        jinja = true
        reasoning_format = "auto"
        reasoning_budget = 0
        spec_draft_n_max = 2
        spec_draft_p_min = 0.5
        threads = 1
        batch_size = 1
        ubatch_size = 1
        parallel = 1
        seed = 1
        flash_attention = "on"
        mlock = true
        mmap = false
        cache_type_k = "q8_0"
        cache_type_v = "q8_0"
        embeddings = true
        pooling = "mean"
        mmproj_path = "/m"
        slot_save_path = "/s"
        cache_ram_mib = 1
        extra_args = ["--x"]
        environment = { A = "b" }
        """
    assert set(load(tmp_path, text).settings.models["a"].server) == set(SERVER_DEFAULT_FIELDS)


def test_what_requests_say_may_be_declared(tmp_path: Path) -> None:
    """For all models, for one, and for its profiles."""
    settings = load(
        tmp_path,
        """
        [inference]
        temperature = 0.7
        [models.a]
        path = "a"
        strip = ["logit_bias"]
        set = { x = [1, { y = "z" }] }
        inference = { max_tokens = 5, stop = ["a"] }
        [models.a.profiles.precise]
        inference.seed = 1
        set.chat_template_kwargs.enable_thinking = false
        """,
        environ={"GGLIB_INFERENCE_TOP_K": "3"},
    ).settings
    model = settings.models["a"]
    (profile,) = model.profiles
    assert settings.inference == InferenceConfig(temperature=0.7, top_k=3)
    assert model.inference == InferenceConfig(max_tokens=5, stop=("a",))
    assert model.set_parameters == {"x": [1, {"y": "z"}]}
    assert model.strip_parameters == ("logit_bias",)
    assert (profile.name, profile.inference) == ("precise", InferenceConfig(seed=1))
    assert profile.set_parameters == {"chat_template_kwargs": {"enable_thinking": False}}


BROKEN = {
    "wrong temperature": ("[inference]\n\ntemperature = -1", 3, "inference.temperature is -1"),
    "wrong temperature of a model": (
        "[models.a]\npath='a'\n[models.a.inference]\ntop_p = 2",
        4,
        "models.a.inference: top_p is 2",
    ),
    "unknown sampling parameter": (
        "[models.a]\npath='a'\ninference.temprature = 1",
        3,
        "unknown key 'temprature'; did you mean 'temperature'?",
    ),
    "unknown key of a profile": (
        "[models.a]\npath='a'\n[models.a.profiles.x]\nsets = 1",
        4,
        "[models.a.profiles.x] unknown key 'sets'; did you mean 'set'?",
    ),
    "profile that is no table": ("[models.a]\npath='a'\nprofiles.x = 1", 3, "profiles.x is 1"),
    "stream that is set": (
        "[models.a]\npath='a'\nset.stream = true",
        3,
        "models.a.set has 'stream'; expected names of parameters, but not model and stream",
    ),
    "strip as a text": ("[models.a]\npath='a'\nstrip = 'x'", 3, "models.a.strip has 'x'"),
    "unknown section": ("[gatway]", 1, "unknown key 'gatway'; did you mean 'gateway'?"),
    "section of later": ("\n[keys]\n", 2, "known here: engines, gateway, inference, models"),
    "unknown planner": ("[routing]\nplanner = 'best'", 2, "routing.planner is 'best'"),
    "places for nobody": ("[pool]\nmax_size = 0", 2, "pool.max_size is 0"),
    "no patience at all": ("[pool]\n\nmax_wait_s = 0", 3, "pool.max_wait_s is 0"),
    "budget that is no size": (
        "[routing]\n[routing.budgets]\ncpu = '8 GiB'",
        2,
        "routing.budgets.cpu is '8 GiB'; expected a number of bytes",
    ),
    "budgets that are no table": ("[routing]\nbudgets = 8", 2, "routing.budgets is 8"),
    "budgets that nobody heeds": (
        "[routing]\nplanner = 'count'\nbudgets.cpu = 5",
        3,
        "routing.budgets has no effect with planner = 'count'; it is for planner = 'memory'",
    ),
    "pool that keeps less than nobody": ("[pool]\nmin_size = -1", 2, "pool.min_size is -1"),
    "pool that keeps more than it has": (
        "[pool]\nmax_size = 2\nmin_size = 3",
        3,
        "pool.min_size is 3; expected at most max_size, 2",
    ),
    "warmup as a text": ("[pool]\nwarmup = 'a'", 2, "expected a list of texts"),
    "groups that nobody heeds": ("[routing.groups.g]\nmembers = ['a']", 1, "has no effect with"),
    "planner of groups without one": (
        "\n[routing]\nplanner = 'groups'",
        2,
        "routing.groups is {}; expected [routing.groups.NAME]; planner = 'exclusive' has one",
    ),
    "groups that are no tables": ("[routing]\nplanner='groups'\ngroups = 1", 3, "groups is 1"),
    "group without members": (
        "[routing]\nplanner = 'groups'\n[routing.groups.g]\nswap = true",
        3,
        "routing.groups.g.members is None; expected a list of names",
    ),
    "group with an unknown key": (
        "[routing]\nplanner = 'groups'\n[routing.groups.g]\nmembrs = ['a']",
        3,
        "routing.groups.g is 'membrs'; expected keys among exclusive, members",
    ),
    "member of two groups": (
        "[routing]\nplanner='groups'\n[routing.groups]\na.members=['x']\nb.members=['x']",
        3,
        "routing.groups is 'x'; expected members of one group only; it is in 'a' too",
    ),
    "matrix without sets": ("[routing]\nplanner = 'matrix'", 1, "matrix.sets is None"),
    "matrix of no set": ("[routing]\nplanner='matrix'\nmatrix.sets=[]", 3, "matrix.sets is []"),
    "matrix with a wrong cost": (
        "[routing]\nplanner='matrix'\nmatrix.sets=[['a']]\nmatrix.costs.a='x'",
        3,
        "matrix.costs.a is 'x'; expected a number",
    ),
    "unknown gateway key": (
        "[gateway]\nhost = 'a'\nprot = 1",
        3,
        "[gateway] unknown key 'prot'; did you mean 'port'?",
    ),
    "gateway of a wrong type": (
        "[gateway]\n\nport = '1'",
        3,
        "gateway.port is '1'; expected an int",
    ),
    "gateway out of range": ("gateway.port = 70_000", 1, "gateway.port is 70000"),
    "truth as text": ("[gateway]\ninsecure = 'no'", 2, "expected true or false"),
    "list as text": ("[gateway]\nallowed_hosts = 'a'", 2, "expected a list of texts"),
    "no header": ("[gateway]\nsession_header = 'x session'", 2, "session_header is 'x session'"),
    "header of no text": ("[gateway]\nsession_header = 1", 2, "session_header is 1"),
    "no time": ("[gateway]\nsilence_timeout_s = false", 2, "silence_timeout_s is False"),
    "collector without a scheme": (
        "[telemetry]\notlp_endpoint = 'localhost:4318'",
        2,
        "telemetry.otlp_endpoint is 'localhost:4318'; expected an http:// or https:// URL",
    ),
    "collector with a path for a query": ("telemetry.otlp_endpoint = 'http://c?a=b'", 1, "c?a=b"),
    "collector on no port": ("telemetry.otlp_endpoint = 'http://c:99999'", 1, "c:99999"),
    "collector as a number": ("telemetry.otlp_endpoint = 1", 1, "otlp_endpoint is 1"),
    "collector with a password": (
        "telemetry.otlp_endpoint = 'http://me:secret@c'",
        1,
        "telemetry.otlp_endpoint is '…@…'",
    ),
    "section that is no table": ("gateway = 1", 1, "gateway is 1; expected a table, [gateway]"),
    "engine that is no table": ("[engines]\nx = 'y'", 2, "engines.x is 'y'; expected a table"),
    "unknown serving key": ("[serving]\nrunnr = 'x'", 2, "did you mean 'runner'?"),
    "no runner at all": ("[serving]\nrunner = ''", 2, "serving.runner is ''"),
    "engine as a number": ("[serving]\nengine = 1", 2, "serving.engine is 1"),
    "kind that is no text": (
        "[runners.x]\nkind = 5",
        2,
        "runners.x.kind is 5; expected the name of an installed one",
    ),
    "source that is no table": ("sources.zoo = 1", 1, "sources.zoo is 1; expected a table"),
    "source that is a drive": ("\n[sources.c]", 2, "source is 'c'; expected two or more letters"),
    "source that is a path": ("[sources.'a/b']", 1, "source is 'a/b'"),
    "source that is the configuration": ("[sources.config]", 1, "source is 'config'"),
    "settings of the source of files": ("[sources.file]\nx = 1", 1, "has no settings"),
    "models that are a list": ("[[models]]\npath = 'a'", 1, "expected a table, [models]"),
    "model that is no table": ("[models]\na = 'a.gguf'", 2, "models.a is 'a.gguf'; expected a t"),
    "unknown model key": (
        "[models.a]\npath = 'a'\n\n# comment\ncontext_sise = 4",
        5,
        "[models.a] unknown key 'context_sise'; did you mean 'context_size'?",
    ),
    "model without path": ("\n[models.a]\nmlock = true", 2, "[models.a] needs a path"),
    "path of a wrong type": ("[models.a]\npath = 5", 2, "models.a.path is 5; expected the path"),
    "path of nobody": ("[models.a]\npath = '~no-such-user-here/x'", 2, "models.a.path is '~no"),
    "server value out of range": (
        "[models.a]\npath = 'a'\ncontext_size = -1",
        3,
        "models.a: context_size is -1; expected an integer of 1 or more",
    ),
    "environment of numbers": (
        "[models.a]\npath = 'a'\n[models.a.environment]\nA = 1",
        3,
        "environment[A] is 1",
    ),
    "arguments as text": ("[models.a]\npath = 'a'\nextra_args = '-x'", 3, "expected a list"),
    "no requests at once": ("[models.a]\npath='a'\nconcurrency_limit = 0", 3, "_limit is 0"),
    "no servers": ("[models.a]\npath = 'a'\nreplicas = 0", 3, "replicas is 0"),
    "servers of one port": (
        "[models.a]\npath = 'a'\nport = 9000\nreplicas = 2",
        4,
        "1 where `port` is set",
    ),
    "mlock as text": ("[models.a]\npath = 'a'\nmlock = 'no'", 3, "expected true or false"),
    "key that has no effect yet": ("[models.a]\npath = 'a'\ntags = []", 3, "unknown key 'tags'"),
    "ttl as text": ("[models.a]\npath = 'a'\nttl_s = '9'", 3, "ttl_s is '9'"),
    "pinned as text": ("[models.a]\npath = 'a'\npinned = 'yes'", 3, "pinned is 'yes'"),
    "priority out of range": ("[models.a]\npath = 'a'\npriority = 5000", 3, "priority is 5000"),
    "no memory": ("[models.a]\npath = 'a'\nmemory_bytes = 0", 3, "memory_bytes is 0"),
    "name that cannot be one": ("[models.'../a']\npath = 'a'", 1, "model_name is '../a'"),
    "alias that cannot be one": ("[models.a]\npath = 'a'\naliases = ['/']", 3, "aliases is '/'"),
    "alias as text": ("[models.a]\npath = 'a'\naliases = 'b'", 3, "expected a list of texts"),
    "alias of two": (
        "[models.a]\npath = 'a'\naliases = ['x']\n[models.b]\npath = 'b'\naliases = ['x']",
        6,
        "the alias 'x' is taken by model 'a'",
    ),
    "alias that is a name": (
        "[models.a]\npath = 'a'\naliases = ['b']\n[models.b]\npath = 'b'",
        3,
        "the alias 'b' is taken by model 'b'",
    ),
    "alias that is its own name": (
        "[models.a]\npath = 'a'\naliases = ['a']",
        3,
        "the alias 'a' is taken by model 'a'",
    ),
    "syntax": ("[gateway]\nport = 1\nhost = = 2", 3, "not TOML: Invalid value"),
    "syntax at the end": ("[gateway]\nhost = '''a", 2, "not TOML: "),
    "same key twice": ("[gateway]\nport = 1\nport = 2", 3, "not TOML: Cannot overwrite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_wrong_file_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    """Every mistake names the file, the line, and what would be right."""
    text, line, part = BROKEN[case]
    error = failure(tmp_path, text)
    assert part in error.message
    assert (error.source, error.line) == (str(tmp_path / "gglib.toml"), line)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """A file that would exhaust the stack is an error like any other."""
    assert "nested too deeply" in str(failure(tmp_path, f"x = {'[' * 100_000}"))


def test_text_that_is_not_unicode_is_refused_with_its_line(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are found by line."""
    (tmp_path / "gglib.toml").write_bytes(b"[gateway]\nhost = '\xff'")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert (caught.value.message, caught.value.line) == ("not UTF-8", 2)


def test_file_of_another_system_is_read(tmp_path: Path) -> None:
    """A byte order mark and carriage returns do not move the lines."""
    (tmp_path / "gglib.toml").write_bytes(b"\xef\xbb\xbf[gateway]\r\n\r\nport = 'x'\r\n")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert caught.value.line == 3


def test_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe, a dangling link and an endless file are refused without waiting."""
    pipe, link, large = (tmp_path / name for name in ("pipe", "link", "large"))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "gone")
    large.touch()
    os.truncate(large, 5 << 20)
    for path, reason in (
        (tmp_path, "a directory, not a file"),
        (pipe, "not a file"),
        (link, "no such file"),
        (large, "larger than 4 MiB"),
        (tmp_path / "large" / "x", "cannot be read: Not a directory"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path, flags={"config": path})
        assert (caught.value.message, caught.value.source) == (reason, str(path))


def test_link_to_nowhere_in_the_data_directory_is_an_error(tmp_path: Path) -> None:
    """A file that is meant to be there is not silently left out."""
    (tmp_path / "gglib.toml").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="no such file"):
        load(tmp_path)


def test_data_directory_that_cannot_be_entered_is_an_error(tmp_path: Path) -> None:
    """Where nobody can look, nobody may conclude that there is no file."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigurationError, match="cannot be read: Too many levels"):
        load(tmp_path / "loop")


def test_secret_is_kept_out_of_messages_and_representations(tmp_path: Path) -> None:
    """Neither an error nor a printed setting shows a key."""
    environ = {"GGLIB_GATEWAY_API_KEYS": "hush-hush\x07,x"}
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, environ=environ)
    assert "hush" not in str(caught.value)
    assert "hush" not in str(failure(tmp_path, "[gateway]\napi_keys = 'hush'"))
    assert "hush" not in repr(GatewaySettings(api_keys=("hush",)))


RUNS_CODE = [
    "[engines.x]\ncommand = ['y']",
    "[runners.x]\nhost = 'y'",
    "[sources.zoo]\nhost = 'y'",
    "[serving]\nengine = 'x'",
    "[models.a]\npath = 'a'\nengine = 'x'",
    "[models.a]\npath = 'a'\nextra_args = ['--x']",
    "[models.a]\npath = 'a'\nenvironment = { A = 'b' }",
]


@pytest.mark.parametrize("text", RUNS_CODE)
def test_file_that_runs_code_and_that_others_can_write_is_refused(
    tmp_path: Path, text: str
) -> None:
    """Who can write what gglib runs can run anything as its user."""
    path = write(tmp_path, text)
    path.chmod(0o602)
    with pytest.raises(ConfigurationError, match="others can write is refused; chmod go-w"):
        load(tmp_path)
    path.chmod(0o644)
    assert load(tmp_path).settings.config_file == path


def test_file_that_runs_nothing_may_be_writable(tmp_path: Path) -> None:
    """A port number cannot hurt."""
    write(tmp_path, "[gateway]\nport = 1\n[models.a]\npath = 'a'").chmod(0o666)
    assert load(tmp_path).settings.gateway.port == 1


def test_file_in_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Another file can be put in its place; not where the folder is sticky."""
    folder = tmp_path / "open"
    folder.mkdir()
    write(folder, RUNS_CODE[0])
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others can write"):
        load(folder)
    folder.chmod(0o1777)
    assert "x" in load(folder).settings.engines


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("group", "refused"), [(0, False), (1, True), (54_321, True)])
def test_group_that_can_write_matters_unless_it_is_the_owners_own(
    tmp_path: Path, group: int, refused: bool
) -> None:
    """Where each user has a group of his own, 0664 is private; any other group is others."""
    path = write(tmp_path, RUNS_CODE[0])
    os.chown(path, 0, group)
    path.chmod(0o660)
    if refused:
        with pytest.raises(ConfigurationError, match="others can write"):
            load(tmp_path)
    else:
        assert "x" in load(tmp_path).settings.engines


def test_settings_import_stays_light() -> None:
    """Every command imports settings: nothing heavy comes with them."""
    heavy = ["cattrs", "httpx", "structlog", "tomllib", "platformdirs", "anyio", "asyncio"]
    code = f"import sys, gglib.settings; print([m for m in {heavy} if m in sys.modules])"
    # A measured child would import what its measurer needs.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout.strip() == "[]"
