"""How much memory a model's context takes.

Source: llama.cpp build 11434 (llama-kv-cache.cpp, llama-kv-cache-iswa.cpp and
llama-memory-recurrent.cpp); measured with xllamacpp 2026.10.11549.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from types import MappingProxyType

import attrs

from gglib.domain.model import ModelFacts

__all__ = ["CACHE_TYPE_BYTES", "KvCache", "kv_cache", "padded"]

#: Bytes of one element, by the cache's type: a quantised block of 32 has a scale of two bytes,
#: and in the types _1 a minimum of two more. Source: ggml-common.h, build 11434.
CACHE_TYPE_BYTES: Mapping[str, Fraction] = MappingProxyType(
    {
        "f32": Fraction(4),
        "f16": Fraction(2),
        "bf16": Fraction(2),
        "q8_0": Fraction(34, 32),
        "q5_1": Fraction(24, 32),
        "q5_0": Fraction(22, 32),
        "q4_1": Fraction(20, 32),
        "q4_0": Fraction(18, 32),
        "iq4_nl": Fraction(18, 32),
    }
)

DEFAULT_CACHE_TYPE = "f16"

#: Cells of a cache come in multiples of this.
_CELLS = 256

#: What recurrent layers keep is always f32.
_STATE_BYTES = 4

#: Where a file says nothing of heads: keys and values as wide as the embeddings.
_ASSUMED_WIDTH = 4096


def padded(count: int, multiple: int = _CELLS) -> int:
    """Return ``count``, or the next multiple above it."""
    return -(-count // multiple) * multiple


def known(value: int | None, otherwise: int) -> int:
    """Return a fact, or ``otherwise`` where the file says nothing, or nonsense."""
    return value if value is not None and value > 0 else otherwise


@attrs.frozen(kw_only=True)
class KvCache:
    """What a context takes. Sizes in bytes, of all layers together."""

    attention_bytes: int
    recurrent_bytes: int
    cells: int
    """Tokens that the cache has room for: the context, rounded up for each slot; 0 where no layer
    attends."""
    seen_cells: int
    """Of these, those that one token may see; those of sliding layers, which have a cache of
    their own, come on top."""

    @property
    def total_bytes(self) -> int:
        """Both kinds together."""
        return self.attention_bytes + self.recurrent_bytes


def kv_cache(
    facts: ModelFacts,
    *,
    context_size: int,
    slots: int,
    unified: bool,
    ubatch_size: int,
    cache_type_k: str | None,
    cache_type_v: str | None,
    full_sliding_cache: bool = False,
) -> KvCache:
    """Return the cache of a context of ``context_size`` tokens that ``slots`` share.

    ``bytes = cells x KV heads x (key length x bytes(K) + value length x bytes(V))``, where the
    KV heads are those of all layers. A layer with sliding attention has cells for its window
    per slot and one physical batch, if that is less. A recurrent layer has one state per slot.

    It is an upper bound where the file says too little: layers that may slide count in full,
    layers that may be recurrent count as both kinds.
    """
    layers = known(facts.layers, 0)
    cells = padded(context_size) if unified else slots * padded(-(-context_size // slots))
    per_cell = _bytes_per_cell(facts, cache_type_k, cache_type_v)
    heads = _kv_heads(facts, layers)
    sliding = min(known(facts.sliding_layers, 0), layers)
    if sliding and facts.sliding_window and not full_sliding_cache:
        window = known(facts.sliding_window, context_size)
        seen = (window * slots if unified else window) + ubatch_size
        rows = min(cells, padded(seen) * (1 if unified else slots))
        # Layers differ in heads only where the file says so: then the mean is all there is.
        of_sliding = Fraction(heads * sliding, layers)
        cell_heads = of_sliding * rows + (heads - of_sliding) * cells
    else:
        rows, cell_heads = 0, Fraction(heads * cells)
    recurrent = min(known(facts.recurrent_layers, 0), layers)
    state = max(0, facts.recurrent_state_size or 0) * recurrent * slots * _STATE_BYTES
    return KvCache(
        attention_bytes=ceil(cell_heads * per_cell),
        recurrent_bytes=state,
        cells=cells if heads else 0,
        seen_cells=(cells + rows) // (1 if unified else slots) if heads else 0,
    )


def key_and_value_lengths(facts: ModelFacts) -> tuple[int, int]:
    """Return the length of one head's keys and values."""
    width = known(facts.embedding_size, _ASSUMED_WIDTH)
    length = max(1, width // known(facts.heads, 1))
    return known(facts.key_length, length), known(facts.value_length, length)


def _bytes_per_cell(facts: ModelFacts, type_k: str | None, type_v: str | None) -> Fraction:
    """Return what one head of one layer keeps of one token."""
    key, value = key_and_value_lengths(facts)
    bytes_k, bytes_v = (
        CACHE_TYPE_BYTES.get(each or DEFAULT_CACHE_TYPE, CACHE_TYPE_BYTES["f32"])
        for each in (type_k, type_v)
    )
    return key * bytes_k + value * bytes_v


def _kv_heads(facts: ModelFacts, layers: int) -> int:
    """Return the KV heads of all layers together."""
    if facts.kv_heads_total is not None and facts.kv_heads_total >= 0:
        return facts.kv_heads_total
    if facts.heads is None and facts.recurrent_state_size is not None:
        return 0  # A recurrent model through and through.
    return layers * known(facts.kv_heads, known(facts.heads, 1))
