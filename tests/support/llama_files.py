"""Llama models of any size, with random weights: for what the tiny one is too small for."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

__all__ = ["write_llama"]


def write_llama(
    path: Path,
    *,
    width: int = 512,
    layers: int = 4,
    heads: int = 8,
    kv_heads: int = 2,
    feed_forward: int = 1408,
    vocabulary: int = 8000,
    context_length: int = 32768,
) -> Path:
    """Write a model of f16 weights that llama.cpp loads and serves."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    named = len(tokens)
    tokens += [f"t{number}" for number in range(vocabulary - named)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (vocabulary - named)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    numbers = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> None:
        values = numbers.standard_normal(shape, dtype=np.float32) * 0.02
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    weights("token_embd", vocabulary, width)
    weights("output", vocabulary, width)
    norm("output_norm")
    of_keys = kv_heads * (width // heads)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        norm(f"{prefix}attn_norm")
        norm(f"{prefix}ffn_norm")
        for part, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", of_keys, width),
            ("attn_v", of_keys, width),
            ("attn_output", width, width),
            ("ffn_gate", feed_forward, width),
            ("ffn_up", feed_forward, width),
            ("ffn_down", width, feed_forward),
        ):
            weights(prefix + part, rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
