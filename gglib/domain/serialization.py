"""Domain values to JSON and back. Unknown keys are refused; values are validated again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

__all__ = ["from_json", "structure", "to_json", "unstructure"]

_MAPPINGS: tuple[object, ...] = (Mapping,)
_SETS: tuple[object, ...] = (frozenset,)

T = TypeVar("T")


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    converter.register_unstructure_hook_func(
        lambda kind: get_origin(kind) in _MAPPINGS,
        lambda value: {key: converter.unstructure(item) for key, item in value.items()},
    )
    converter.register_unstructure_hook_func(lambda kind: get_origin(kind) in _SETS, sorted)
    converter.register_unstructure_hook_factory(
        attrs.has,
        lambda kind: make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True),
    )
    converter.register_structure_hook_factory(
        attrs.has,
        lambda kind: make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True),
    )
    return converter


def unstructure(value: Any) -> Any:
    """Return ``value`` as plain data that JSON can carry; defaults are left out."""
    return _converter().unstructure(value)


def structure(data: Any, kind: type[T]) -> T:
    """Return plain ``data`` as a validated ``kind``."""
    return _converter().structure(data, kind)


def to_json(value: Any) -> str:
    """Return ``value`` as one line of ASCII JSON: a path need not be Unicode to survive it."""
    return json.dumps(unstructure(value), separators=(",", ":"))


def from_json(text: str | bytes, kind: type[T]) -> T:
    """Return the ``kind`` that ``text`` describes, validated."""
    return structure(json.loads(text), kind)
