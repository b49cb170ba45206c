"""The mixture of element types that a file is, where its file type does not tell."""

from __future__ import annotations

import pytest

from gglib_adapters.sources.ggml_types import GGML_TYPES, quantization_label

NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}


@pytest.mark.parametrize(
    ("most", "others", "expected"),
    [
        ("Q4_K", {"blk.0.attn_v": "Q6_K", "blk.3.ffn_down": "Q6_K", "output": "Q6_K"}, "Q4_K_M"),
        ("Q4_K", {"blk.0.attn_v": "Q5_K", "blk.0.ffn_down": "Q5_K", "output": "Q6_K"}, "Q4_K_S"),
        ("Q4_K", {"blk.7.ffn_down_exps": "Q6_K"}, "Q4_K_M"),
        ("Q4_K", {"blk.0.attn_qkv": "Q5_K"}, "Q4_K_M"),
        ("Q4_K", {"output": "Q6_K"}, "Q4_K"),
        ("Q5_K", {"blk.0.attn_v": "Q6_K"}, "Q5_K_M"),
        ("Q5_K", {"blk.0.attn_v": "Q5_K"}, "Q5_K_S"),
        ("Q3_K", {"blk.0.attn_output": "Q5_K"}, "Q3_K_L"),
        ("Q3_K", {"blk.0.attn_output": "Q4_K"}, "Q3_K_M"),
        ("Q3_K", {"blk.0.attn_output": "Q3_K"}, "Q3_K_S"),
        ("Q6_K", {"blk.0.attn_v": "Q8_0"}, "Q6_K"),
    ],
)
@pytest.mark.parametrize("file_type", [None, 1])
def test_mixture_is_told_by_the_matrices_that_differ(
    most: str, others: dict[str, str], expected: str, file_type: int | None
) -> None:
    """As llama.cpp mixes them; a file type that contradicts the tensors does not matter."""
    tensors = [("blk.0.ffn_up.weight", NUMBERS[most])]
    tensors += [(f"{name}.weight", NUMBERS[kind]) for name, kind in others.items()]
    sizes = {NUMBERS[kind]: 1 for kind in others.values()} | {NUMBERS[most]: 900}
    assert quantization_label(sizes, file_type, tensors) == expected
