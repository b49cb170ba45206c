"""The flags of the embedded server: llama-server's, as far as it knows them.

One table, read by both sides: the engine spells a command line with it, the server parses
one. Spellings and meanings are llama-server's. Source: llama-server --help, build 11434.
Nothing is imported here, so that the server's process starts quickly.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FLAGS", "Flag", "help_text"]

_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


class Flag(NamedTuple):
    """One option: ``kind`` is the type of its value, ``None`` for a switch.

    ``attribute`` is the dotted name on xllamacpp's ``CommonParams`` that takes the value
    as it is; empty where a rule of its own applies. Source: xllamacpp 2026.10.11549.
    """

    spellings: tuple[str, ...]
    text: str
    attribute: str = ""
    hint: str = ""
    kind: type[int] | type[float] | type[str] | None = None
    choices: tuple[str, ...] = ()


def _integer(spellings: str, text: str, attribute: str = "") -> Flag:
    return Flag(tuple(spellings.split()), text, attribute, "N", int)


def _text(spellings: str, hint: str, text: str, attribute: str = "") -> Flag:
    return Flag(tuple(spellings.split()), text, attribute, hint, str)


def _choice(spelling: str, choices: tuple[str, ...], text: str) -> Flag:
    return Flag((spelling,), text, "", f"{{{','.join(choices)}}}", str, choices)


def _switch(spellings: str, text: str) -> Flag:
    return Flag(tuple(spellings.split()), text)


FLAGS: tuple[Flag, ...] = (
    _switch("-h --help", "print usage and exit"),
    _switch("--version", "show the version and exit"),
    _text("-m --model", "FNAME", "model path to load", "model.path"),
    _text("-a --alias", "STRING", "model name aliases, comma-separated"),
    _text("--host", "HOST", "address to listen on; loopback only (default: 127.0.0.1)"),
    _integer("--port", "port to listen on; 0 = any free one (default: 0)", "port"),
    _integer("-c --ctx-size", "size of the prompt context; 0 = the model's own", "n_ctx"),
    _integer("-ngl --gpu-layers --n-gpu-layers", "layers to store in VRAM", "n_gpu_layers"),
    _integer("-t --threads", "threads for generation", "cpuparams.n_threads"),
    _integer("-tb --threads-batch", "threads for prompts", "cpuparams_batch.n_threads"),
    _integer("--threads-http", "threads for HTTP", "n_threads_http"),
    _integer("-b --batch-size", "logical maximum batch size", "n_batch"),
    _integer("-ub --ubatch-size", "physical maximum batch size", "n_ubatch"),
    _integer("-np --parallel", "server slots; -1 = auto (default: -1)", "n_parallel"),
    _integer("-s --seed", "seed of requests that bring none; -1 = random"),
    _choice("--flash-attn", ("on", "off", "auto"), "flash attention"),
    _choice("--load-mode", ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio"), "loading mode"),
    _choice("--cache-type-k", _CACHE_TYPES, "KV cache data type for K"),
    _choice("--cache-type-v", _CACHE_TYPES, "KV cache data type for V"),
    _choice("--fit", ("on", "off"), "adjust unset arguments to the device's memory"),
    _switch("--kv-unified", "one KV buffer for all slots"),
    _switch("--no-kv-unified", "a KV buffer per slot"),
    _switch("--jinja", "use the model's chat template"),
    _switch("--no-jinja", "use built-in chat templates"),
    _text("--chat-template", "JINJA_TEMPLATE", "chat template", "chat_template"),
    _choice(
        "--reasoning-format",
        ("none", "deepseek", "deepseek-legacy", "auto"),
        "where thoughts go in an answer",
    ),
    _integer(
        "--reasoning-budget",
        "tokens of thinking; -1 = any number, 0 = none",
        "sampling.reasoning_budget_tokens",
    ),
    _choice("--spec-type", ("none", "draft-mtp"), "kind of speculative decoding"),
    _integer("--spec-draft-n-max", "tokens to draft", "speculative.draft.n_max"),
    Flag(
        ("--spec-draft-p-min",),
        "least probability of a drafted token",
        "speculative.draft.p_min",
        "P",
        float,
    ),
    _switch("--embedding --embeddings", "serve embeddings"),
    _switch("--rerank --reranking", "serve reranking"),
    _choice("--pooling", ("none", "mean", "cls", "last", "rank"), "pooling of embeddings"),
    _text("-mm --mmproj", "FILE", "multimodal projector", "mmproj.path"),
    _text("--lora", "FNAME", "LoRA adapters, comma-separated"),
    _text("--lora-scaled", "FNAME:SCALE,...", "LoRA adapters with their scales"),
    _switch("--lora-init-without-apply", "load LoRA adapters without applying them"),
    _text("--slot-save-path", "PATH", "folder for saved slots"),
    _integer("-cram --cache-ram", "prompt cache in MiB; -1 = no limit", "cache_ram_mib"),
    _integer("--cache-reuse", "least chunk to reuse by KV shifting", "n_cache_reuse"),
    _switch("--no-cache-prompt", "do not reuse prompts"),
    _switch("--context-shift", "shift the context when it is full"),
    _switch("--swa-full", "full-size SWA cache"),
    _switch("--no-warmup", "skip the empty run after loading"),
    _integer("--sleep-idle-seconds", "sleep after idling; -1 = never", "sleep_idle_seconds"),
    _switch("--metrics", "serve /metrics"),
    _switch("--slots", "serve /slots"),
    _switch("--no-slots", "do not serve /slots"),
    _integer("-lv --log-verbosity", "1 errors … 5 debug (default: 3)", "verbosity"),
)

_COLUMN = 40


def help_text() -> str:
    """Return the ``--help`` text, in llama-server's layout."""
    lines = ["----- embedded server -----", ""]
    for flag in FLAGS:
        head = " ".join(filter(None, (", ".join(flag.spellings), flag.hint)))
        if len(head) < _COLUMN - 1:
            lines.append(f"{head:<{_COLUMN}}{flag.text}")
        else:
            lines += [head, " " * _COLUMN + flag.text]
    return "\n".join(lines) + "\n"
