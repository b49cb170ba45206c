"""Projectors (mmproj files): found in a folder, and read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from gglib.domain.projector import Projector
from gglib.errors import ModelError
from gglib_adapters.sources.facts import title_of
from gglib_adapters.sources.ggml_types import quantization_label
from gglib_adapters.sources.gguf_header import GgufHeader, peek_gguf_kind, read_gguf_header
from gglib_adapters.sources.memory_facts import count_of

__all__ = [
    "find_projectors",
    "is_projector",
    "is_projector_kind",
    "projector_of",
    "projectors_in",
]

#: A folder with more files than this is no folder of models.
_MAX_FILES = 10_000


def is_projector(path: Path) -> bool:
    """Whether the file says, in its first bytes, that it is a projector."""
    try:
        architecture, kind = peek_gguf_kind(path)
    except ModelError:
        return False
    return is_projector_kind(architecture, kind)


def is_projector_kind(architecture: str | None, kind: str | None) -> bool:
    """Whether that is what a projector says of itself."""
    return architecture == "clip" or kind == "mmproj"


def find_projectors(paths: Iterable[Path]) -> Iterator[Projector]:
    """Return the projectors among files; what cannot be read is none."""
    for path in paths:
        if is_projector(path):
            try:
                yield projector_of(path, read_gguf_header(path))
            except ModelError:
                continue


def projectors_in(folder: Path) -> tuple[Projector, ...]:
    """Return the projectors in a folder, by name; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in islice(entries, _MAX_FILES)
                if entry.name.lower().endswith(".gguf")
            ]
    except (OSError, ValueError):
        return ()
    return tuple(find_projectors(folder / name for name in sorted(names)))


def projector_of(path: Path, header: GgufHeader) -> Projector:
    """Return the projector whose header that is."""
    metadata, tensors = header.metadata, header.tensors
    kinds = ("vision", "audio")
    encoders = {kind: metadata.get(f"clip.has_{kind}_encoder") is True for kind in kinds}
    stated = {count_of(metadata.get(f"clip.{kind}.projection_dim")) for kind in kinds} - {None}
    sizes = tensors.projection_sizes
    # Of old files the stated width is that of the image encoder; then the last layers tell.
    widths = {size for size in stated if size in sizes or not sizes} or sizes
    return Projector(
        path=path,
        widths=frozenset(size for size in widths if size is not None),
        title=title_of(metadata),
        quantization=quantization_label(tensors.bytes_by_type, metadata.get("general.file_type")),
        # Files from before there was sound do not say that they see.
        vision=encoders["vision"] or not encoders["audio"],
        audio=encoders["audio"],
    )
