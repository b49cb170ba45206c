"""Domain values to JSON and back. Unknown keys are refused; values are validated again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import CattrsError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

__all__ = ["from_json", "structure", "to_json", "unstructure"]

_MAPPINGS: tuple[object, ...] = (Mapping,)
_SETS: tuple[object, ...] = (frozenset,)
_LISTS: tuple[object, ...] = (tuple, frozenset)

T = TypeVar("T")


def _exactly(primitive: type) -> Callable[[Any, Any], Any]:
    """Return a check without conversion: "false" is no boolean, and 1.5 no integer."""

    def check(value: Any, kind: Any) -> Any:
        if type(value) is not primitive:
            raise TypeError(f"expected {primitive.__name__}, not {type(value).__name__}")
        # Enumerations of texts come here too, with themselves as the kind.
        return value if kind is primitive else kind(value)

    return check


def _one_or_several(value: Any, _: Any) -> Any:
    several = isinstance(value, list) and all(type(item) is str for item in value)
    if not (value is None or several or type(value) is str):
        raise TypeError(f"expected a text or a list of texts, not {type(value).__name__}")
    return tuple(value) if several else value


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, not {type(value).__name__}")
    return float(value)


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)

    def many(kind: Any) -> Callable[[Any, Any], Any]:
        item_kind = get_args(kind)[0]
        collect: Any = get_origin(kind)
        structure_item = converter.get_structure_hook(item_kind)

        def structure_all(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise TypeError(f"expected list, not {type(value).__name__}")
            return collect([structure_item(item, item_kind) for item in value])

        return structure_all

    for primitive in (int, str, bool):
        converter.register_structure_hook(primitive, _exactly(primitive))
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook_func(
        lambda kind: kind == str | tuple[str, ...] | None, _one_or_several
    )
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) in _LISTS, many)
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
    """Return plain ``data`` as a validated ``kind``. Nothing is converted on the way.

    Raises:
        ValueError: it is none; an ``InvalidValue`` where one field is out of its range.
    """
    try:
        return _converter().structure(data, kind)
    except ValueError:
        raise
    except KeyError as error:
        raise ValueError(f"no valid {kind.__name__}: it lacks {error}") from error
    except (AttributeError, CattrsError, OverflowError, TypeError) as error:
        raise ValueError(f"no valid {kind.__name__}: {error}") from error


def to_json(value: Any) -> str:
    """Return ``value`` as one line of ASCII JSON: a path need not be Unicode to survive it."""
    return json.dumps(unstructure(value), separators=(",", ":"))


def from_json(text: str | bytes, kind: type[T]) -> T:
    """Return the ``kind`` that ``text`` describes, validated.

    Raises:
        ValueError: as for ``structure``, or ``text`` is not JSON.
    """
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"no valid {kind.__name__}: nested too deeply") from error
    return structure(data, kind)
