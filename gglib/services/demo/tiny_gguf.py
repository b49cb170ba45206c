"""A real model of half a megabyte, made in memory: for the demo, the doctor and tests."""

from __future__ import annotations

import random
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence

__all__ = ["tiny_gguf"]

_WIDTH, _LAYERS, _HEADS, _FEED_FORWARD = 64, 2, 4, 128
_CONTEXT_LENGTH = 2048
_TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
_FIRST_BYTE_TOKEN = 3
_SPEAKABLE = frozenset(b" abcdefghijklmnopqrstuvwxyz")
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_TOKEN_UNKNOWN, _TOKEN_CONTROL, _TOKEN_BYTE = 2, 3, 6
_GGML_F32 = 0
_ALIGNMENT = 32


def tiny_gguf(seed: int = 0, *, name: str = "gglib tiny") -> bytes:
    """Return a GGUF file (v3, little endian, about 470 kB) that llama.cpp loads and serves.

    The same ``seed`` and ``name`` give the same bytes on every machine. The model is of
    architecture llama, has a chat template and a context of 2,048 tokens (one per byte), and
    answers gibberish in lower-case letters and spaces. It never ends an answer by itself: a
    completion has exactly ``max_tokens`` tokens, or as many as the context holds.

    Source: docs/gguf.md of ggml (layout); llama.cpp build 11434 (tensors and keys).
    """
    tensors = _tensors(random.Random(seed))  # noqa: S311 - weights, not secrets
    infos, data = [], []
    offset = 0
    for tensor_name, shape, values in tensors:
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos.append(_string(tensor_name) + dimensions + struct.pack("<IQ", _GGML_F32, offset))
        content = _padded(_floats(values))
        data.append(content)
        offset += len(content)
    pairs = _metadata(name)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    return _padded(head + b"".join(pairs) + b"".join(infos)) + b"".join(data)


def _metadata(name: str) -> list[bytes]:
    types = (_TOKEN_UNKNOWN, _TOKEN_CONTROL, _TOKEN_CONTROL, *[_TOKEN_BYTE] * 256)
    return [
        _text("general.architecture", "llama"),
        _text("general.name", name),
        _number("general.file_type", 0),
        _number("llama.context_length", _CONTEXT_LENGTH),
        _number("llama.embedding_length", _WIDTH),
        _number("llama.block_count", _LAYERS),
        _number("llama.feed_forward_length", _FEED_FORWARD),
        _number("llama.attention.head_count", _HEADS),
        _number("llama.attention.head_count_kv", _HEADS),
        _number("llama.rope.dimension_count", _WIDTH // _HEADS),
        _number("llama.vocab_size", len(_TOKENS)),
        _pair("llama.attention.layer_norm_rms_epsilon", _F32, struct.pack("<f", 1e-5)),
        _text("tokenizer.ggml.model", "llama"),
        _array("tokenizer.ggml.tokens", _STRING, [_string(token) for token in _TOKENS]),
        _array("tokenizer.ggml.scores", _F32, [struct.pack("<f", 0.0)] * len(_TOKENS)),
        _array("tokenizer.ggml.token_type", _I32, [struct.pack("<i", kind) for kind in types]),
        _number("tokenizer.ggml.unknown_token_id", 0),
        _number("tokenizer.ggml.bos_token_id", 1),
        _number("tokenizer.ggml.eos_token_id", 2),
        _text("tokenizer.chat_template", _TEMPLATE),
    ]


def _tensors(source: random.Random) -> list[tuple[str, tuple[int, ...], Sequence[float]]]:
    """Return (name, shape, values); a shape's first number is the length of one row."""
    number = source.random

    def noise(amplitude: float, count: int) -> list[float]:
        return [(number() - 0.5) * 2 * amplitude for _ in range(count)]

    ones = [1.0] * _WIDTH
    embeddings = noise(0.5, _WIDTH * len(_TOKENS))
    output = noise(0.5, _WIDTH * len(_TOKENS))
    # A constant first dimension carries a bias, so that only speakable bytes are ever sampled.
    for token in range(len(_TOKENS)):
        embeddings[token * _WIDTH] = 1.0
        speakable = token - _FIRST_BYTE_TOKEN in _SPEAKABLE
        output[token * _WIDTH] = 0.0 if speakable else -16.0
    tensors: list[tuple[str, tuple[int, ...], Sequence[float]]] = [
        ("token_embd.weight", (_WIDTH, len(_TOKENS)), embeddings),
        ("output_norm.weight", (_WIDTH,), ones),
        ("output.weight", (_WIDTH, len(_TOKENS)), output),
    ]
    for layer in range(_LAYERS):
        prefix = f"blk.{layer}."
        tensors += [
            (f"{prefix}{norm}.weight", (_WIDTH,), ones) for norm in ("attn_norm", "ffn_norm")
        ]
        for part, rows, columns in (
            ("attn_q", _WIDTH, _WIDTH),
            ("attn_k", _WIDTH, _WIDTH),
            ("attn_v", _WIDTH, _WIDTH),
            ("attn_output", _WIDTH, _WIDTH),
            ("ffn_gate", _FEED_FORWARD, _WIDTH),
            ("ffn_up", _FEED_FORWARD, _WIDTH),
            ("ffn_down", _WIDTH, _FEED_FORWARD),
        ):
            values = noise(0.05, rows * columns)
            tensors.append((f"{prefix}{part}.weight", (columns, rows), values))
    return tensors


def _floats(values: Sequence[float]) -> bytes:
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)


def _string(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _text(key: str, value: str) -> bytes:
    return _pair(key, _STRING, _string(value))


def _number(key: str, value: int) -> bytes:
    return _pair(key, _U32, struct.pack("<I", value))


def _array(key: str, kind: int, items: Iterable[bytes]) -> bytes:
    content = list(items)
    return _pair(key, _ARRAY, struct.pack("<IQ", kind, len(content)) + b"".join(content))
