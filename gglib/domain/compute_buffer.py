"""How much working memory llama.cpp reserves for one physical batch.

Source: fitted to what xllamacpp 2026.10.11549 reports ("compute buffer size") for 34 models and
configurations, architecture llama; see docs/explanation/memory.md. Others are bounded from above
by the same rows, as far as their facts tell; what a mixture of experts adds is not measured.
"""

from __future__ import annotations

from gglib.domain.kv_cache import key_and_value_lengths, known
from gglib.domain.model import ModelFacts

__all__ = ["compute_buffer_bytes", "host_buffer_bytes"]

#: Rows that are as wide as the embeddings, and that are alive at the same time.
_WIDE_ROWS = 5
#: Of a feed-forward layer: gate, up, and their product.
_FEED_FORWARD_ROWS = 3
#: Of f32.
_NUMBER_BYTES = 4
#: Where a file says nothing of the feed-forward layers.
_USUAL_FEED_FORWARD = 4
_REST_BYTES = 2 * 2**20


def compute_buffer_bytes(
    facts: ModelFacts,
    *,
    ubatch_size: int,
    cells: int,
    outputs: int,
    flash_attention: bool,
    narrowed: tuple[bool, bool] = (False, False),
    all_cells: int = 0,
) -> int:
    """Return the bytes reserved for batches of ``ubatch_size`` tokens over ``cells`` of cache that
    each of them may see.

    ``4 x ubatch x (5 x embedding + widest) + mask``, where the widest is the largest of three
    feed-forward rows, attention, and the logits of ``outputs`` tokens. Without flash attention
    that has a number for each head and cell; the mask has 2 bytes per cell and token with
    it, 4 without. ``narrowed``: whether keys, and values, are f32 in the cache: then those of one
    layer, of ``all_cells``, are copied for each batch, and that may be the widest of all.
    """
    width = known(facts.embedding_size, 0)
    heads = known(facts.heads, 1)
    key, value = key_and_value_lengths(facts)
    attention = 2 * heads * max(key, value) + known(facts.kv_heads, heads) * (key + value)
    if not flash_attention:
        attention += heads * cells
    feed_forward = _FEED_FORWARD_ROWS * known(facts.feed_forward_size, _USUAL_FEED_FORWARD * width)
    if facts.expert_count:
        # Each expert's answer is kept until all are weighed.
        feed_forward += width * known(facts.expert_used_count, 1)
    widest = ubatch_size * max(feed_forward, attention)
    logits = known(facts.vocabulary_size, 0) * outputs
    mask = cells * ubatch_size * (2 if flash_attention else 4)
    # Flash attention takes keys and values of f32 as f16.
    copied = key * narrowed[0] + value * narrowed[1] if flash_attention else 0
    copy = 2 * all_cells * known(facts.kv_heads, heads) * copied
    if copy:
        copy += _NUMBER_BYTES * ubatch_size * heads * key
    rows = _NUMBER_BYTES * ubatch_size * _WIDE_ROWS * width
    return rows + max(_NUMBER_BYTES * max(widest, logits), copy) + mask + _REST_BYTES


def host_buffer_bytes(
    facts: ModelFacts, *, ubatch_size: int, cells: int, flash_attention: bool
) -> int:
    """Return the bytes that a server with all layers on GPUs reserves in the machine's memory.

    What goes in and out of a batch: one row as wide as the embeddings per token, and the mask.
    """
    width = known(facts.embedding_size, 0)
    mask = cells * (2 if flash_attention else 4)
    return ubatch_size * (_NUMBER_BYTES * width + mask) + _REST_BYTES
