"""From intent to a llama-server command line, in the spelling that one binary knows.

Pure: the binary's ``--help`` comes in parsed. What it cannot express is refused before
anything starts; nothing is dropped. Sampling is not here: it is the request's.

Source: llama-server --help, builds of August 2025 and 11434.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import NoReturn

import attrs

from gglib.domain.config import ServerConfig
from gglib.errors import EngineCannot
from gglib_adapters.engines.llama_help import KnownFlags, Option

__all__ = ["ENVIRONMENT", "LOOPBACK", "build_argv"]

#: Where servers listen. They are reached through the gateway, never from outside.
LOOPBACK = "127.0.0.1"

#: Without it, one that aborts first runs a debugger on itself: two seconds in which it looks
#: alive, and a log that ends in frames instead of the reason. Source: ggml.c, build 11434.
ENVIRONMENT = MappingProxyType({"GGML_NO_BACKTRACE": "1"})

#: Intents that are one flag with one value, whose name only varies.
_VALUED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("context_size", ("--ctx-size",)),
    ("gpu_layers", ("--gpu-layers", "--n-gpu-layers")),
    ("threads", ("--threads",)),
    ("batch_size", ("--batch-size",)),
    ("ubatch_size", ("--ubatch-size",)),
    ("parallel", ("--parallel",)),
    ("seed", ("--seed",)),
    ("cache_type_k", ("--cache-type-k",)),
    ("cache_type_v", ("--cache-type-v",)),
    ("pooling", ("--pooling",)),
    ("mmproj_path", ("--mmproj",)),
    ("slot_save_path", ("--slot-save-path",)),
    ("reasoning_format", ("--reasoning-format",)),
)


def build_argv(
    program: Sequence[str], config: ServerConfig, port: int, flags: KnownFlags, *, engine: str
) -> list[str]:
    """Return the argument vector that serves ``config`` on ``127.0.0.1:port``.

    ``program`` goes first, ``config.extra_args`` last. The model's name becomes the alias
    that answers carry, unless it has a comma, which separates aliases.

    Raises:
        EngineCannot: ``flags`` has no spelling for an intent; names the field.
    """
    line = _CommandLine(engine, flags)
    line.add("--model", str(config.model_path))
    line.add("--host", LOOPBACK)
    line.add("--port", str(port))
    if "," not in config.model_name and "--alias" in flags:
        line.add("--alias", config.model_name)
    for field, spellings in _VALUED:
        value = getattr(config, field)
        if value is not None:
            line.say(field, value, *spellings)
    _memory(line, config)
    _attention(line, config)
    _chat(line, config)
    _drafting(line, config)
    _cache_ram(line, config)
    if config.embeddings:
        line.switch("embeddings", True, "--embeddings", "--embedding")
    _lora(line, config)
    for observed in ("--metrics", "--slots"):
        if observed in flags:
            line.add(observed)
    return [*program, *line.argv, *config.extra_args]


@attrs.frozen
class _CommandLine:
    """The line so far, and the one way to refuse."""

    engine: str
    flags: KnownFlags
    argv: list[str] = attrs.field(factory=list)

    def add(self, *arguments: str) -> None:
        self.argv.extend(arguments)

    def refuse(self, field: str, value: object, remedy: str | None = None) -> NoReturn:
        raise EngineCannot(
            self.engine, field, value, remedy or "leave it unset, or use a newer llama-server"
        )

    def find(self, field: str, value: object, *spellings: str) -> tuple[str, Option]:
        found = self.flags.first(*spellings)
        if found is None:
            self.refuse(field, value)
        return found

    def say(self, field: str, value: object, *spellings: str) -> None:
        spelling, option = self.find(field, value, *spellings)
        if isinstance(value, str) and not option.accepts(value):
            choices = ", ".join(sorted(option.choices))
            self.refuse(field, value, f"this binary's {spelling} takes {choices}")
        self.add(spelling, str(value))

    def switch(self, field: str, value: object, *spellings: str) -> None:
        self.add(self.find(field, value, *spellings)[0])


def _memory(line: _CommandLine, config: ServerConfig) -> None:
    if config.mmap and not config.mlock:
        return
    field, value = ("mlock", True) if config.mlock else ("mmap", False)
    mode = {(True, True): "mmap+mlock", (True, False): "mlock", (False, False): "none"}[
        config.mlock, config.mmap
    ]
    if "--load-mode" in line.flags:
        if not line.flags.options["--load-mode"].accepts(mode):
            line.refuse(field, value)
        line.add("--load-mode", mode)
        return
    if config.mlock:
        line.switch("mlock", True, "--mlock")
    if not config.mmap:
        line.switch("mmap", False, "--no-mmap")


def _attention(line: _CommandLine, config: ServerConfig) -> None:
    wanted = config.flash_attention
    if wanted is None:
        return
    found = line.flags.first("--flash-attn", "-fa")
    if found is not None and found[1].takes_value:
        line.say("flash_attention", wanted, found[0])
    elif wanted == "on":
        line.switch("flash_attention", wanted, "--flash-attn", "-fa")
    elif wanted == "auto":
        line.refuse("flash_attention", wanted)
    # A bare flag is off unless given: absence says 'off'.


def _chat(line: _CommandLine, config: ServerConfig) -> None:
    if config.jinja is True:
        line.switch("jinja", True, "--jinja")
    elif config.jinja is False:
        option = line.flags.options.get("--jinja")
        if "--no-jinja" in line.flags:
            line.add("--no-jinja")
        elif option is not None and "default: enabled" in option.description:
            line.refuse("jinja", False)
        # Otherwise templates are off, or unknown, unless asked for: absence says it.
    budget = config.reasoning_budget
    if budget is not None:
        spelling, option = line.find("reasoning_budget", budget, "--reasoning-budget")
        if budget > 0 and "currently only one of" in option.description:
            line.refuse("reasoning_budget", budget, "this llama-server knows only 0 and -1")
        line.add(spelling, str(budget))


def _drafting(line: _CommandLine, config: ServerConfig) -> None:
    count = config.spec_draft_n_max
    if count is None:
        return
    spelling, option = line.find("spec_draft_n_max", count, "--spec-type")
    # A model's own drafting heads (MTP); plain '--draft-max' needs a second model.
    kind = next((word for word in ("draft-mtp", "mtp") if word in option.choices), None)
    if kind is None:
        line.refuse("spec_draft_n_max", count)
    line.add(spelling, kind)
    line.say("spec_draft_n_max", count, "--spec-draft-n-max", "--draft-max")
    line.say(
        "spec_draft_p_min", config.effective_spec_draft_p_min, "--spec-draft-p-min", "--draft-p-min"
    )


def _cache_ram(line: _CommandLine, config: ServerConfig) -> None:
    # A binary from before this cache has none: absence says 0.
    limit = config.cache_ram_mib
    if limit is not None and not (limit == 0 and "--cache-ram" not in line.flags):
        line.say("cache_ram_mib", limit, "--cache-ram")


def _lora(line: _CommandLine, config: ServerConfig) -> None:
    """Load adapters in order, each at its scale; 0 loads one without applying it.

    A request that chooses none gets them all at these scales. Scale 0 is the only way to
    load and not apply: after ``--lora-init-without-apply`` such a request still gets the
    adapters. And one that chooses none after one that chose some may reuse a prompt that
    was computed with them: zeros in the request prevent that (both seen in build 11434).
    """
    adapters = config.lora_adapters
    if not adapters:
        return
    spelling, option = line.find("lora_adapters", adapters, "--lora-scaled")
    if ":" not in option.hint:
        for adapter in adapters:
            line.add(spelling, str(adapter.path), str(adapter.scale))
        return
    for adapter in adapters:
        if ":" in str(adapter.path):
            line.refuse("lora_adapters", str(adapter.path), "use a path without ':'")
    # One flag for all: of a repeated one only the last counts. Fields are quoted as in CSV.
    line.add(spelling, ",".join(_csv(f"{each.path}:{each.scale}") for each in adapters))


def _csv(text: str) -> str:
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if "," in text or '"' in text else text
