"""What a model file's header says of the memory that its context will take.

Source: gguf 0.19.0, constants.Keys; llama.cpp build 11434, llama-hparams.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from gglib_adapters.sources.gguf_header import GgufValue

__all__ = ["count_of", "memory_facts"]

_MAX_INT = 2**63 - 1

#: Of so many layers, the last has full attention, where the file does not say which.
#: Source: llama.cpp build 11434, llama-model.cpp.
_SLIDING_PERIODS = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gpt-oss": 2}


def count_of(value: GgufValue | None) -> int | None:
    """Return a count, the largest of several, or ``None`` for anything that is not one."""
    if isinstance(value, tuple):
        value = max((item for item in value if isinstance(item, int)), default=None)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_INT:
        return None
    return value


class _Keys:
    """An architecture's part of the metadata."""

    def __init__(self, architecture: str, metadata: Mapping[str, GgufValue]) -> None:
        self._architecture = architecture
        self._metadata = metadata

    def value(self, key: str) -> GgufValue | None:
        return self._metadata.get(f"{self._architecture}.{key}")

    def count(self, key: str) -> int | None:
        return count_of(self.value(key))

    def per_layer(self, key: str, layers: int | None) -> list[int] | None:
        """Return the numbers of an array with one for each layer."""
        value = self.value(key)
        if not isinstance(value, tuple) or len(value) != layers:
            return None
        numbers = [int(item) for item in value if isinstance(item, int) and 0 <= item <= _MAX_INT]
        return numbers if len(numbers) == layers else None


def memory_facts(architecture: str, metadata: Mapping[str, GgufValue]) -> dict[str, int | None]:
    """Return fields of ``ModelFacts`` by name; ``None``: the file does not say."""
    keys = _Keys(architecture, metadata)
    layers = keys.count("block_count")
    state = _state_size(keys)
    kv_heads = keys.per_layer("attention.head_count_kv", layers)
    interval = keys.count("full_attention_interval")
    attending = None if kv_heads is None else sum(map(bool, kv_heads))
    total = None if kv_heads is None else min(sum(kv_heads), _MAX_INT)
    if attending is None and state is not None and layers is not None and interval is not None:
        attending = layers // interval
        total = attending * (keys.count("attention.head_count_kv") or 0)
    window = keys.count("attention.sliding_window")
    return {
        "feed_forward_size": _feed_forward(keys),
        "key_length": keys.count("attention.key_length"),
        "value_length": keys.count("attention.value_length"),
        "kv_heads_total": total,
        "sliding_window": window,
        "sliding_layers": None if window is None else _sliding(keys, architecture, layers),
        "recurrent_layers": None if state is None else _others(layers, attending),
        "recurrent_state_size": state,
    }


def _others(layers: int | None, attending: int | None) -> int | None:
    """Return how many layers are recurrent: where nothing tells, all may be."""
    if layers is None or not attending or attending >= layers:
        return layers
    return layers - attending


def _feed_forward(keys: _Keys) -> int | None:
    dense = keys.count("feed_forward_length") or 0
    used = keys.count("expert_used_count") or 0
    experts = used * (keys.count("expert_feed_forward_length") or (dense if used else 0))
    shared = keys.count("expert_shared_feed_forward_length") or 0
    return min(max(dense, experts + shared), _MAX_INT) or None


def _sliding(keys: _Keys, architecture: str, layers: int | None) -> int | None:
    pattern = keys.value("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return sum(item is True for item in pattern) if len(pattern) == layers else None
    period = count_of(pattern) or _SLIDING_PERIODS.get(architecture)
    if layers is None or period is None:
        return None
    return layers - layers // period


def _state_size(keys: _Keys) -> int | None:
    """Return the elements that one recurrent layer keeps for one sequence."""
    width = keys.count("embedding_length") or 0
    inner, state = keys.count("ssm.inner_size"), keys.count("ssm.state_size")
    if inner is not None and state is not None:
        groups = keys.count("ssm.group_count") or 0
        rows = (keys.count("ssm.conv_kernel") or 1) - 1
        found = rows * (inner + 2 * groups * state) + inner * state
    elif (head := keys.count("wkv.head_size")) is not None:
        found = width * (head + (keys.count("token_shift_count") or 2))
    elif (cached := keys.count("shortconv.l_cache")) is not None:
        found = width * (cached - 1)
    else:
        return None
    return min(found, _MAX_INT)
