"""Multimodal projectors: what gives a model eyes or ears, in a file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import attrs

from gglib.domain.model import Capability, ModelFacts

__all__ = ["Projector", "choose_projector", "with_projector", "without_projector"]

#: What a file's name says of its encoding, and not of the model.
_ENCODING = re.compile(
    r"i?q\d+(_[a-z0-9]+)*|tq\d_\d|b?f16|fp16|f32|fp32|f64|bf16|mxfp4(_moe)?|nvfp4|ud|imat|i1|gguf"
)
_NO_NAME = frozenset({"mmproj", "projector", "model", "clip", "vision", "adapter"})
#: The least that is lost, then the least memory.
_PREFERENCE = ("F16", "BF16", "Q8_0", "F32")


@attrs.frozen(kw_only=True)
class Projector:
    """A projector's file, and what it says of itself."""

    path: Path
    widths: frozenset[int] = frozenset()
    """Embedding sizes of the models that it may belong to; none: it does not say."""
    title: str | None = None
    quantization: str | None = None
    vision: bool = False
    audio: bool = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What a model gains by it."""
        gained = {Capability.VISION: self.vision, Capability.AUDIO: self.audio}
        return frozenset(name for name, is_so in gained.items() if is_so)


def choose_projector(
    path: Path, facts: ModelFacts, projectors: Iterable[Projector]
) -> Projector | None:
    """Return the projector of the model whose (first) file is ``path``, of those beside it.

    It is in the same folder, is as wide as the model's embeddings, and every word of its name is
    in the model's, encodings left aside. Its name is its file's, or, where that says no more than
    ``mmproj-F16``, its title. Of several, the one with the most words in common; then F16 before
    BF16, Q8_0, F32 and the rest.
    """
    if not facts.capabilities & {Capability.CHAT, Capability.COMPLETION}:
        return None
    known = _words(path.stem) | _words(facts.display_name or "")
    found: list[tuple[int, int, str, Projector]] = []
    for each in projectors:
        words = _words(each.path.stem) or _words(each.title or "")
        wide = not each.widths or facts.embedding_size in each.widths
        if each.path.parent == path.parent and wide and words <= known:
            rank = (*_PREFERENCE, each.quantization).index(each.quantization)
            found.append((-len(words), rank, each.path.name, each))
    return min(found, key=lambda item: item[:3])[3] if found else None


def with_projector(facts: ModelFacts, projector: Projector | None) -> ModelFacts:
    """Return the facts of a model that has that projector, or none."""
    if projector is None:
        return facts
    return attrs.evolve(facts, capabilities=facts.capabilities | projector.capabilities)


def without_projector(facts: ModelFacts) -> ModelFacts:
    """Return the facts of a model that had a projector and lost it."""
    gained = {Capability.VISION, Capability.AUDIO}
    return attrs.evolve(facts, capabilities=facts.capabilities - gained)


def _words(name: str) -> frozenset[str]:
    parts = re.split(r"[\W]+", name.casefold())
    kept = "_".join(part for part in parts if part and not _ENCODING.fullmatch(part))
    words = {word for word in kept.split("_") if word}
    shard = {word for word in words if re.fullmatch(r"\d{5}|of", word)}
    return frozenset(words - _NO_NAME - shard)
