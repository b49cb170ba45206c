"""What a GGUF header says of its tensors, summed up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from gglib_adapters.sources.bounded_reader import MalformedFile
from gglib_adapters.sources.ggml_types import GGML_TYPES

__all__ = ["END_TENSORS", "INPUT", "OUTPUT", "GgufTensors", "tensor_size"]

_MAX_ELEMENTS = 1 << 60

#: The token embeddings, and the output layer's weights. Source: gguf 0.19.0, TENSOR_NAMES.
END_TENSORS = (INPUT, OUTPUT) = ("token_embd.weight", "output.weight")


@attrs.frozen(kw_only=True)
class GgufTensors:
    """The tensors of one file, summed up. ``elements`` counts all of them."""

    names: tuple[str, ...] = ()
    types: tuple[int, ...] = ()
    """ggml types, in the order of ``names``."""
    elements: int = 0
    bytes_by_type: Mapping[int, int] = MappingProxyType({})
    """Sizes by ggml type; types unknown here count one byte per element."""
    bytes_by_name: Mapping[str, int] = MappingProxyType({})
    """Sizes of the tensors at both ends of a model: ``END_TENSORS``."""
    projection_sizes: frozenset[int] = frozenset()
    """Dimensions of a projector's last layers (``mm.…``)."""


def tensor_size(name: str, shape: list[int], kind: int) -> tuple[int, int]:
    """Return the elements and the bytes of a tensor."""
    elements = 1
    for dimension in shape:
        elements *= dimension
        if not 0 < elements <= _MAX_ELEMENTS:
            raise MalformedFile(f"damaged: tensor {name[:80]!r} has impossible dimensions")
    known = GGML_TYPES.get(kind)
    if known is None:
        return elements, elements
    if (shape[0] if shape else 1) % known.block_size:
        raise MalformedFile(
            f"damaged: tensor {name[:80]!r} has rows of {shape[0] if shape else 1} elements, "
            f"no multiple of {known.name}'s {known.block_size}"
        )
    return elements, elements // known.block_size * known.block_bytes
