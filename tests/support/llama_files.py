"""Models of any size and several architectures, with random weights, that llama.cpp serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np

__all__ = ["SHAPES", "write_llama"]

_STEPS = ("gate", "up", "down")


class _Writer:
    """One file: its vocabulary, and weights by name."""

    def __init__(self, path: Path, architecture: str, width: int, layers: int) -> None:
        self.gguf = gguf.GGUFWriter(path, architecture)
        self.width = width
        self._numbers = np.random.default_rng(0)
        self._path = path
        self.gguf.add_context_length(32768)
        self.gguf.add_embedding_length(width)
        self.gguf.add_block_count(layers)
        self.gguf.add_layer_norm_rms_eps(1e-5)

    def tokens(self, vocabulary: int) -> None:
        """Write a vocabulary of so many, the bytes among them."""
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        named = len(tokens)
        tokens += [f"t{number}" for number in range(vocabulary - named)]
        self.gguf.add_vocab_size(vocabulary)
        self.gguf.add_tokenizer_model("llama")
        self.gguf.add_token_list(tokens)
        self.gguf.add_token_scores([0.0] * vocabulary)
        self.gguf.add_token_types([2, 3, 3, *[6] * 256, *[1] * (vocabulary - named)])
        self.gguf.add_bos_token_id(1)
        self.gguf.add_eos_token_id(2)
        self.gguf.add_unk_token_id(0)

    def weights(self, name: str, *shape: int, suffix: str = ".weight") -> None:
        """Write weights of f16."""
        values = self._numbers.standard_normal(shape, dtype=np.float32) * 0.02
        self.gguf.add_tensor(name + suffix, values.astype(np.float16))

    def plain(self, name: str, *shape: int, suffix: str = ".weight", value: float = 1.0) -> None:
        """Write numbers of f32, all the same."""
        self.gguf.add_tensor(name + suffix, np.full(shape, value, np.float32))

    def attention(self, prefix: str, heads: int, kv_heads: int, length: int) -> None:
        """Write the weights of a layer's attention."""
        self.weights(f"{prefix}attn_q", heads * length, self.width)
        self.weights(f"{prefix}attn_k", kv_heads * length, self.width)
        self.weights(f"{prefix}attn_v", kv_heads * length, self.width)
        self.weights(f"{prefix}attn_output", self.width, heads * length)

    def feed_forward(self, prefix: str, size: int, experts: int = 0) -> None:
        """Write the weights of a layer's feed-forward part."""
        for step in _STEPS:
            shape = (self.width, size) if step == "down" else (size, self.width)
            if experts:
                self.weights(f"{prefix}ffn_{step}_exps", experts, *shape)
            else:
                self.weights(f"{prefix}ffn_{step}", *shape)
        if experts:
            self.plain(f"{prefix}ffn_gate_inp", experts, self.width, value=0.01)

    def norms(self, prefix: str, *names: str, size: int | None = None) -> None:
        """Write norms as wide as the model."""
        for name in names:
            self.plain(prefix + name, size or self.width)

    def end(self) -> Path:
        """Write it to the disk."""
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()
        return self._path


def write_llama(
    path: Path,
    *,
    width: int = 512,
    layers: int = 4,
    heads: int = 8,
    kv_heads: int = 2,
    feed_forward: int = 1408,
    vocabulary: int = 8000,
    experts: int = 0,
    tied: bool = False,
) -> Path:
    """Write one of llama's kind. ``tied``: the output layer is the token embeddings."""
    writer = _Writer(path, "llama", width, layers)
    writer.gguf.add_feed_forward_length(feed_forward)
    writer.gguf.add_head_count(heads)
    writer.gguf.add_head_count_kv(kv_heads)
    writer.gguf.add_rope_dimension_count(width // heads)
    if experts:
        writer.gguf.add_expert_count(experts)
        writer.gguf.add_expert_used_count(2)
    writer.tokens(vocabulary)
    writer.weights("token_embd", vocabulary, width)
    if not tied:
        writer.weights("output", vocabulary, width)
    writer.norms("", "output_norm")
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.norms(prefix, "attn_norm", "ffn_norm")
        writer.attention(prefix, heads, kv_heads, width // heads)
        writer.feed_forward(prefix, feed_forward, experts)
    return writer.end()


def _sliding(path: Path) -> Path:
    """Write one of gemma3's kind: five layers of six see a window of 512 tokens."""
    width, layers, heads, kv_heads, length, feed_forward, vocabulary = 512, 7, 4, 2, 128, 1536, 8000
    writer = _Writer(path, "gemma3", width, layers)
    writer.gguf.add_feed_forward_length(feed_forward)
    writer.gguf.add_head_count(heads)
    writer.gguf.add_head_count_kv(kv_heads)
    writer.gguf.add_key_length(length)
    writer.gguf.add_value_length(length)
    writer.gguf.add_sliding_window(512)
    writer.tokens(vocabulary)
    writer.weights("token_embd", vocabulary, width)
    writer.norms("", "output_norm")
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.norms(prefix, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        writer.norms(prefix, "attn_q_norm", "attn_k_norm", size=length)
        writer.attention(prefix, heads, kv_heads, length)
        writer.feed_forward(prefix, feed_forward)
    return writer.end()


def _recurrent(path: Path) -> Path:
    """Write one of mamba's kind: it has states and no cache."""
    width, layers, inner, state, kernel, rank, vocabulary = 512, 6, 1024, 16, 4, 32, 8000
    writer = _Writer(path, "mamba", width, layers)
    writer.gguf.add_feed_forward_length(0)
    writer.gguf.add_head_count(0)
    writer.gguf.add_ssm_conv_kernel(kernel)
    writer.gguf.add_ssm_inner_size(inner)
    writer.gguf.add_ssm_state_size(state)
    writer.gguf.add_ssm_time_step_rank(rank)
    writer.tokens(vocabulary)
    writer.weights("token_embd", vocabulary, width)
    writer.norms("", "output_norm")
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.norms(prefix, "attn_norm")
        writer.weights(f"{prefix}ssm_in", 2 * inner, width)
        writer.plain(f"{prefix}ssm_conv1d", inner, kernel, value=0.1)
        writer.plain(f"{prefix}ssm_conv1d", inner, suffix=".bias", value=0.0)
        writer.weights(f"{prefix}ssm_x", rank + 2 * state, inner)
        writer.weights(f"{prefix}ssm_dt", inner, rank)
        writer.plain(f"{prefix}ssm_dt", inner, suffix=".bias", value=0.0)
        writer.plain(f"{prefix}ssm_a", inner, state, suffix="", value=-1.0)
        writer.plain(f"{prefix}ssm_d", inner, suffix="")
        writer.weights(f"{prefix}ssm_out", width, inner)
    return writer.end()


def _hybrid(path: Path) -> Path:
    """Write one of lfm2's kind: two layers of six attend, the others are short convolutions."""
    width, heads, kv_heads, feed_forward, vocabulary, kernel = 512, 8, 4, 1408, 8000, 3
    attends = [False, False, True, False, False, True]
    writer = _Writer(path, "lfm2", width, len(attends))
    writer.gguf.add_feed_forward_length(feed_forward)
    writer.gguf.add_head_count(heads)
    writer.gguf.add_head_count_kv([kv_heads if it_does else 0 for it_does in attends])
    writer.gguf.add_shortconv_l_cache(kernel)
    writer.tokens(vocabulary)
    writer.weights("token_embd", vocabulary, width)
    writer.norms("", "token_embd_norm")
    for layer, it_does in enumerate(attends):
        prefix = f"blk.{layer}."
        writer.norms(prefix, "attn_norm", "ffn_norm")
        writer.feed_forward(prefix, feed_forward)
        if it_does:
            writer.attention(prefix, heads, kv_heads, width // heads)
            writer.norms(prefix, "attn_q_norm", "attn_k_norm", size=width // heads)
        else:
            writer.plain(f"{prefix}shortconv.conv", width, kernel, value=0.1)
            writer.weights(f"{prefix}shortconv.in_proj", 3 * width, width)
            writer.weights(f"{prefix}shortconv.out_proj", width, width)
    return writer.end()


#: What differs in what a context takes, by its name; of 29 to 101 MB.
SHAPES: Mapping[str, Callable[[Path], Path]] = MappingProxyType(
    {
        "dense": lambda path: write_llama(path, kv_heads=8),
        "grouped queries": lambda path: write_llama(
            path, width=1024, layers=3, heads=16, feed_forward=2816, vocabulary=16000, tied=True
        ),
        "experts": lambda path: write_llama(path, layers=3, feed_forward=704, experts=8),
        "sliding": _sliding,
        "recurrent": _recurrent,
        "hybrid": _hybrid,
    }
)
