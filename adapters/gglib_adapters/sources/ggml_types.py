"""ggml's element types, and the names llama.cpp gives to mixtures of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

__all__ = ["FILE_TYPES", "GGML_TYPES", "GgmlType", "quantization_label"]


@attrs.frozen
class GgmlType:
    """A tensor's element type: ``block_bytes`` hold ``block_size`` elements."""

    name: str
    block_size: int
    block_bytes: int


#: By the number in a tensor's header. Source: gguf 0.19.0, GGML_QUANT_SIZES.
GGML_TYPES: Mapping[int, GgmlType] = MappingProxyType(
    {
        0: GgmlType("F32", 1, 4),
        1: GgmlType("F16", 1, 2),
        2: GgmlType("Q4_0", 32, 18),
        3: GgmlType("Q4_1", 32, 20),
        6: GgmlType("Q5_0", 32, 22),
        7: GgmlType("Q5_1", 32, 24),
        8: GgmlType("Q8_0", 32, 34),
        9: GgmlType("Q8_1", 32, 40),
        10: GgmlType("Q2_K", 256, 84),
        11: GgmlType("Q3_K", 256, 110),
        12: GgmlType("Q4_K", 256, 144),
        13: GgmlType("Q5_K", 256, 176),
        14: GgmlType("Q6_K", 256, 210),
        15: GgmlType("Q8_K", 256, 292),
        16: GgmlType("IQ2_XXS", 256, 66),
        17: GgmlType("IQ2_XS", 256, 74),
        18: GgmlType("IQ3_XXS", 256, 98),
        19: GgmlType("IQ1_S", 256, 50),
        20: GgmlType("IQ4_NL", 32, 18),
        21: GgmlType("IQ3_S", 256, 110),
        22: GgmlType("IQ2_S", 256, 82),
        23: GgmlType("IQ4_XS", 256, 136),
        24: GgmlType("I8", 1, 1),
        25: GgmlType("I16", 1, 2),
        26: GgmlType("I32", 1, 4),
        27: GgmlType("I64", 1, 8),
        28: GgmlType("F64", 1, 8),
        29: GgmlType("IQ1_M", 256, 56),
        30: GgmlType("BF16", 1, 2),
        34: GgmlType("TQ1_0", 256, 54),
        35: GgmlType("TQ2_0", 256, 66),
        39: GgmlType("MXFP4", 32, 17),
        40: GgmlType("NVFP4", 64, 36),
        41: GgmlType("Q1_0", 128, 18),
    }
)

#: ``general.file_type`` to its label and the element type that most of its tensors have.
#: Source: gguf 0.19.0, LlamaFileType; llama.cpp src/llama-quant.cpp, build 11434.
FILE_TYPES: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        0: ("F32", "F32"),
        1: ("F16", "F16"),
        2: ("Q4_0", "Q4_0"),
        3: ("Q4_1", "Q4_1"),
        7: ("Q8_0", "Q8_0"),
        8: ("Q5_0", "Q5_0"),
        9: ("Q5_1", "Q5_1"),
        10: ("Q2_K", "Q2_K"),
        11: ("Q3_K_S", "Q3_K"),
        12: ("Q3_K_M", "Q3_K"),
        13: ("Q3_K_L", "Q3_K"),
        14: ("Q4_K_S", "Q4_K"),
        15: ("Q4_K_M", "Q4_K"),
        16: ("Q5_K_S", "Q5_K"),
        17: ("Q5_K_M", "Q5_K"),
        18: ("Q6_K", "Q6_K"),
        19: ("IQ2_XXS", "IQ2_XXS"),
        20: ("IQ2_XS", "IQ2_XS"),
        21: ("Q2_K_S", "Q2_K"),
        22: ("IQ3_XS", "IQ3_S"),
        23: ("IQ3_XXS", "IQ3_XXS"),
        24: ("IQ1_S", "IQ1_S"),
        25: ("IQ4_NL", "IQ4_NL"),
        26: ("IQ3_S", "IQ3_S"),
        27: ("IQ3_M", "IQ3_S"),
        28: ("IQ2_S", "IQ2_XS"),
        29: ("IQ2_M", "IQ2_S"),
        30: ("IQ4_XS", "IQ4_XS"),
        31: ("IQ1_M", "IQ1_M"),
        32: ("BF16", "BF16"),
        36: ("TQ1_0", "TQ1_0"),
        37: ("TQ2_0", "TQ2_0"),
        38: ("MXFP4_MOE", "MXFP4"),
        39: ("NVFP4", "NVFP4"),
        40: ("Q1_0", "Q1_0"),
    }
)
_UNQUANTIZED = frozenset({"F32", "F16", "BF16"})


#: What tells a mixture from its siblings: matrices that some of them keep in more bits.
_TELLING = re.compile(r"blk\.\d+\.(attn_v|attn_qkv|attn_output|ffn_down(?:_exps)?)\.weight")


def quantization_label(
    bytes_by_type: Mapping[int, int],
    file_type: object,
    tensors: Iterable[tuple[str, int]] = (),
) -> str | None:
    """Return a label in llama.cpp's style (``Q4_K_M``), or ``None`` without tensors.

    The tensors decide. ``general.file_type`` only refines what they say: its label is used
    if its element type is the one with the most bytes, or (for quantized types) if any tensor
    has it, since small models keep many tensors in other types; a file type that converters
    left behind (F16 on a quantized file) is thus ignored. Otherwise it is the mixture that
    ``tensors``, names with their types, are of, or the name of the type with the most bytes:
    ``type N`` for one that is not known here.
    """
    if not bytes_by_type:
        return None
    dominant = max(bytes_by_type, key=lambda kind: (bytes_by_type[kind], -kind))
    name = _type_name(dominant)
    if isinstance(file_type, int) and file_type in FILE_TYPES:
        label, base = FILE_TYPES[file_type]
        present = {GGML_TYPES[kind].name for kind in bytes_by_type if kind in GGML_TYPES}
        if base == name or (base in present and base not in _UNQUANTIZED):
            return label
    return _mixture(name, tensors)


def _mixture(base: str, tensors: Iterable[tuple[str, int]]) -> str:
    """Return the mixture of mostly ``base``.

    Source: llama.cpp src/llama-quant.cpp, llama_tensor_get_type, build 11434.
    """
    if base not in {"Q3_K", "Q4_K", "Q5_K"}:
        return base
    types: dict[str, set[str]] = {}
    for name, kind in tensors:
        if match := _TELLING.fullmatch(name):
            types.setdefault(match[1], set()).add(_type_name(kind))
    if not types:
        return base
    if base == "Q3_K":
        of_output = types.get("attn_output", set())
        size = "L" if "Q5_K" in of_output else "M" if "Q4_K" in of_output else "S"
    else:
        raised = types.get("attn_v", set()) | types.get("ffn_down", set())
        raised |= types.get("ffn_down_exps", set())
        size = "M" if "Q6_K" in raised or types.get("attn_qkv", set()) - {base} else "S"
    return f"{base}_{size}"


def _type_name(kind: int) -> str:
    known = GGML_TYPES.get(kind)
    return known.name if known is not None else f"type {kind}"
