"""Whole headers, as converters write them, against the reference implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import SkippedArray, read_gguf_header

LAYERS, WIDTH = 6, 64

#: What beside the plain keys makes an architecture: by the writer's methods.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"head_count_kv": 2},
    "qwen3": {"key_length": 128, "value_length": 96},
    "qwen3moe": {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 32},
    "deepseek2": {
        "expert_count": 8,
        "expert_used_count": 2,
        "expert_shared_feed_forward_length": 16,
        "nextn_predict_layers": 1,
        "key_length_mla": 192,
    },
    "gemma2": {"sliding_window": 512},
    "gemma3": {"sliding_window": 512, "sliding_window_pattern": [True, False] * 3},
    "gpt-oss": {"sliding_window": 128, "expert_count": 4, "expert_used_count": 2},
    "cohere2": {"sliding_window": 256, "sliding_window_pattern": 4},
    "mamba": {"ssm_conv_kernel": 4, "ssm_inner_size": 128, "ssm_state_size": 16},
    "jamba": {
        "head_count_kv": [0, 0, 4, 0, 0, 4],
        "ssm_conv_kernel": 4,
        "ssm_inner_size": 128,
        "ssm_state_size": 16,
    },
    "qwen3next": {
        "full_attention_interval": 4,
        "ssm_conv_kernel": 4,
        "ssm_inner_size": 128,
        "ssm_state_size": 16,
        "ssm_group_count": 2,
    },
    "rwkv7": {"wkv_head_size": 64, "token_shift_count": 2},
    "lfm2": {"shortconv_l_cache": 3, "head_count_kv": [0, 2, 0, 2, 0, 2]},
    "bert": {"pooling_type": gguf.PoolingType.MEAN},
    "nomic-bert": {"pooling_type": gguf.PoolingType.CLS},
}


def write(path: Path, architecture: str, endianess: gguf.GGUFEndian) -> Path:
    """Write a header with everything that a converter says, by the reference writer."""
    writer = gguf.GGUFWriter(path, architecture, endianess=endianess)
    writer.add_name("A Model")
    writer.add_tags(["text-generation", "dünn"])
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(128)
    writer.add_head_count(8)
    for method, value in {"head_count_kv": 4, **ARCHITECTURES[architecture]}.items():
        getattr(writer, f"add_{method}")(value)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokens = [f"<{number}>" for number in range(1500)]
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_token_types([1] * len(tokens))
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    for name, rows in (("token_embd", 10), ("blk.0.attn_v", 4), ("output", 10)):
        matrix = np.ones((rows, WIDTH), dtype=np.float32)
        quantized = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("endianess", list(gguf.GGUFEndian))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_header_reads_as_the_reference_reads_it(
    tmp_path: Path, architecture: str, endianess: gguf.GGUFEndian
) -> None:
    """Every key with its value (of long lists their length), every tensor with type and size."""
    path = write(tmp_path / "m.gguf", architecture, endianess)
    header, reference = read_gguf_header(path), gguf.GGUFReader(path)

    fields = {key: each for key, each in reference.fields.items() if not key.startswith("GGUF.")}
    assert set(header.metadata) == set(fields)
    for key, field in fields.items():
        ours, theirs = header.metadata[key], field.contents()
        if isinstance(ours, SkippedArray):
            assert (ours.count, ours.element_type) == (len(theirs), int(field.types[-1])), key
        else:
            assert (list(ours) if isinstance(ours, tuple) else ours) == theirs, key
    assert list(zip(header.tensors.names, header.tensors.types, strict=True)) == [
        (each.name, int(each.tensor_type)) for each in reference.tensors
    ]
    assert header.tensors.elements == sum(int(each.n_elements) for each in reference.tensors)
    sizes = {each.name: int(each.n_bytes) for each in reference.tensors}
    assert sum(header.tensors.bytes_by_type.values()) == sum(sizes.values())
    assert dict(header.tensors.bytes_by_name) == {
        name: sizes[name] for name in ("token_embd.weight", "output.weight")
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_facts_are_the_same_in_both_byte_orders(tmp_path: Path, architecture: str) -> None:
    """And they are those that were written."""
    little, big = (
        facts_of(read_gguf_header(write(tmp_path / f"{order.name}.gguf", architecture, order)))
        for order in gguf.GGUFEndian
    )
    assert little == big
    assert (little.architecture, little.quantization) == (architecture, "Q8_0")
    assert (little.layers, little.context_length, little.embedding_size) == (LAYERS, 4096, WIDTH)
    assert (little.heads, little.vocabulary_size) == (8, 1500)
    assert little.expert_count == ARCHITECTURES[architecture].get("expert_count")
