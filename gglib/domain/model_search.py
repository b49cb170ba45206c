"""Finding models among many: what they are called, what they can do, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from gglib.domain.model import Capability, Model

__all__ = ["SORT_KEYS", "find_models"]


def _most(value: float | None) -> tuple[bool, float]:
    """Sort the largest first, and what is not known last."""
    return value is None, -(value or 0)


def _text(value: str | None) -> tuple[bool, str]:
    return value is None, (value or "").casefold()


#: What models are sorted by: texts from A, numbers from the largest, dates from the newest.
SORT_KEYS: Mapping[str, Callable[[Model], Any]] = MappingProxyType(
    {
        "name": lambda model: _text(model.name),
        "size": lambda model: _most(model.size_bytes),
        "added": lambda model: _most(model.added_at),
        "parameters": lambda model: _most(model.facts.parameters),
        "context": lambda model: _most(model.facts.context_length),
        "architecture": lambda model: _text(model.facts.architecture),
        "quantization": lambda model: _text(model.facts.quantization),
    }
)


def find_models(
    models: Iterable[Model],
    *,
    search: str = "",
    capabilities: Iterable[Capability] = (),
    tags: Iterable[str] = (),
    sort: str = "name",
    reverse: bool = False,
) -> list[Model]:
    """Return the models that have every word of ``search``, capability and tag, in order.

    A word is looked for in names, aliases, tags, title, architecture, quantization and the
    file's path, without regard to case. ``sort``: one of ``SORT_KEYS``; equal ones by name.
    """
    words = search.casefold().split()
    wanted, labels = frozenset(capabilities), frozenset(tags)
    found = [
        model
        for model in models
        if wanted <= model.facts.capabilities
        and labels <= set(model.tags)
        and (not words or _has_all(model, words))
    ]
    found.sort(key=lambda model: model.name)
    found.sort(key=SORT_KEYS[sort])
    return found[::-1] if reverse else found


def _has_all(model: Model, words: Iterable[str]) -> bool:
    text = _searched(model)
    return all(word in text for word in words)


def _searched(model: Model) -> str:
    facts = model.facts
    texts = (
        model.name,
        *model.aliases,
        *model.tags,
        facts.display_name or "",
        facts.architecture or "",
        facts.quantization or "",
        str(model.path),
    )
    return "\n".join(texts).casefold()
