"""From intent to llama-server's command line, against real --help texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from support.strategies import server_configs

from gglib.domain.config import LoraAdapter, ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.errors import EngineCannot
from gglib_adapters.engines.embedded_flags import help_text
from gglib_adapters.engines.llama_flags import build_argv
from gglib_adapters.engines.llama_help import KnownFlags, parse_help

FOLDER = Path(__file__).parent / "golden"
NEW = parse_help((FOLDER / "help-new.txt").read_text(encoding="utf-8"))
OLD = parse_help((FOLDER / "help-old.txt").read_text(encoding="utf-8"))
EMBEDDED = parse_help(help_text())
BINARIES = pytest.mark.parametrize("flags", [NEW, OLD, EMBEDDED], ids=["new", "old", "embedded"])

MINIMAL = ServerConfig(model_id=1, model_name="qwen2.5:7b", model_path=Path("/models/qwen.gguf"))

FULL = attrs.evolve(
    MINIMAL,
    context_size=8192,
    gpu_layers=0,
    threads=8,
    batch_size=1024,
    ubatch_size=256,
    parallel=3,
    seed=42,
    mlock=True,
    mmap=False,
    cache_type_k="q8_0",
    cache_type_v="q4_0",
    embeddings=True,
    pooling="mean",
    mmproj_path=Path("/models/mmproj.gguf"),
    lora_adapters=(
        LoraAdapter(Path("/models/a,b.gguf"), scale=0.5),
        LoraAdapter(Path("/models/c.gguf"), scale=0),
    ),
    slot_save_path=Path("/data/slots"),
    extra_args=("--verbose", "-x"),
)
FULL_NEW = attrs.evolve(
    FULL,
    jinja=False,
    reasoning_format="deepseek-legacy",
    reasoning_budget=512,
    spec_draft_n_max=2,
    flash_attention="auto",
    cache_ram_mib=-1,
)
FULL_OLD = attrs.evolve(
    FULL,
    jinja=True,
    reasoning_format="deepseek",
    reasoning_budget=0,
    flash_attention="on",
    cache_ram_mib=0,
)


def argv(config: ServerConfig, flags: KnownFlags = NEW) -> list[str]:
    """Return the command line of ``config`` on port 4711."""
    return build_argv(["llama-server"], config, 4711, flags, engine="llama-server")


def spelled(config: ServerConfig, flags: KnownFlags) -> tuple[list[str] | None, str | None]:
    """Return the command line of ``config``, or the field that has none."""
    try:
        return argv(config, flags), None
    except EngineCannot as refusal:
        return None, refusal.field


@pytest.mark.parametrize(
    ("golden", "config", "flags"),
    [
        ("argv-minimal-new.txt", MINIMAL, NEW),
        ("argv-minimal-old.txt", MINIMAL, OLD),
        ("argv-full-new.txt", FULL_NEW, NEW),
        ("argv-full-old.txt", FULL_OLD, OLD),
    ],
)
def test_a_configuration_is_spelled_as_the_binary_knows_it(
    golden: str, config: ServerConfig, flags: KnownFlags
) -> None:
    """The whole command line, for the newest and an old binary."""
    found = "\n".join(argv(config, flags)) + "\n"
    if os.environ.get("GGLIB_WRITE_GOLDEN"):
        (FOLDER / golden).write_text(found, encoding="utf-8")
    assert (FOLDER / golden).read_text(encoding="utf-8") == found


@BINARIES
@given(config=server_configs)
def test_any_configuration_is_spelled_or_refused_by_name(
    flags: KnownFlags, config: ServerConfig
) -> None:
    """Every flag of a command line is known to the binary; else the field is named."""
    line, refused = spelled(config, flags)
    assert (line is None) == (refused in {field.name for field in attrs.fields(ServerConfig)})
    if line is None:
        return
    end = len(line) - len(config.extra_args)
    assert config.extra_args == tuple(line[end:])
    position = 1
    while position < end:
        option = flags.options[line[position]]
        position += 1 + len(option.hint.split())
    assert position == end


#: Fields whose value is another part's business.
NO_FLAG = {"model_id", "base_port", "port", "inference", "environment", "engine"}
CHANGED: dict[str, Any] = {
    "model_name": "other",
    "model_path": Path("/other.gguf"),
    "reasoning_format": "none",
    "flash_attention": "on",
    "mlock": True,
    "mmap": False,
    "jinja": True,
    "cache_type_k": "q4_0",
    "cache_type_v": "q4_0",
    "embeddings": True,
    "pooling": "last",
    "mmproj_path": Path("/mmproj.gguf"),
    "lora_adapters": (LoraAdapter(Path("/lora.gguf")),),
    "slot_save_path": Path("/slots"),
    "spec_draft_p_min": 0.5,
    "extra_args": ("--verbose",),
}


@BINARIES
@pytest.mark.parametrize(
    "field", [field.name for field in attrs.fields(ServerConfig) if field.name not in NO_FLAG]
)
def test_no_field_is_dropped_silently(flags: KnownFlags, field: str) -> None:
    """Setting any one field changes the command line, or is refused by that name."""
    base = attrs.evolve(MINIMAL, spec_draft_n_max=2) if field == "spec_draft_p_min" else MINIMAL
    before, _ = spelled(base, flags)
    after, refused = spelled(attrs.evolve(base, **{field: CHANGED.get(field, 7)}), flags)
    if after is None:
        assert refused in {field, "spec_draft_n_max"}
    else:
        assert before != after


@pytest.mark.parametrize(
    ("flags", "change", "field"),
    [
        (OLD, {"flash_attention": "auto"}, "flash_attention"),
        (OLD, {"spec_draft_n_max": 2}, "spec_draft_n_max"),
        (OLD, {"cache_ram_mib": 100}, "cache_ram_mib"),
        (OLD, {"reasoning_budget": 100}, "reasoning_budget"),
        (OLD, {"reasoning_format": "deepseek-legacy"}, "reasoning_format"),
        (NEW, {"lora_adapters": (LoraAdapter(Path("/a:b.gguf")),)}, "lora_adapters"),
    ],
)
def test_an_intent_without_a_spelling_is_refused(
    flags: KnownFlags, change: dict[str, Any], field: str
) -> None:
    """What a binary cannot do is an error before the start, with the field and the value."""
    with pytest.raises(EngineCannot) as caught:
        argv(attrs.evolve(MINIMAL, **change), flags)
    assert (field, "llama-server") == (caught.value.field, caught.value.engine)


@pytest.mark.parametrize(
    "change", [{"flash_attention": "off"}, {"jinja": False}, {"cache_ram_mib": 0}]
)
def test_what_an_old_binary_does_unasked_is_said_by_absence(change: dict[str, Any]) -> None:
    """Off is what a bare flag means when it is not given."""
    assert argv(MINIMAL, OLD) == argv(attrs.evolve(MINIMAL, **change), OLD)


@pytest.mark.parametrize(
    ("mlock", "mmap", "expected"),
    [(True, True, "mmap+mlock"), (True, False, "mlock"), (False, False, "none")],
)
def test_memory_wishes_become_one_load_mode(mlock: bool, mmap: bool, expected: str) -> None:
    """Two switches of old are one word now."""
    line = argv(attrs.evolve(MINIMAL, mlock=mlock, mmap=mmap))
    assert expected == line[line.index("--load-mode") + 1]


def test_drafting_without_a_probability_says_the_default() -> None:
    """MTP drafting brings its kind, its length and the least probability."""
    line = argv(attrs.evolve(MINIMAL, spec_draft_n_max=2))
    start = line.index("--spec-type")
    expected = ["draft-mtp", "--spec-draft-n-max", "2", "--spec-draft-p-min", "0.75"]
    assert expected == line[start + 1 : start + 6]


def test_a_name_with_a_comma_is_no_alias() -> None:
    """A comma would make two aliases of one name."""
    assert "--alias" not in argv(attrs.evolve(MINIMAL, model_name="a,b"))


@BINARIES
def test_sampling_never_reaches_the_command_line(flags: KnownFlags) -> None:
    """Sampling parameters belong to the request."""
    sampled = attrs.evolve(MINIMAL, inference=InferenceConfig(temperature=0.1, top_k=5))
    assert argv(MINIMAL, flags) == argv(sampled, flags)
