"""What a server has of the memory where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from gglib.domain.validation import at_least
from gglib.errors import InvalidValue

__all__ = ["ServerMemory"]

_whole = at_least(0, optional=False)


def _within_resident(instance: Any, attribute: Any, value: Any) -> None:
    _whole(instance, attribute, value)
    if value > instance.resident_bytes:
        most = f"at most resident_bytes, {instance.resident_bytes}"
        raise InvalidValue(attribute.name, value, most)


def _frozen(value: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class ServerMemory:
    """What a server and all that it started have at one moment, in bytes."""

    resident_bytes: int = attrs.field(validator=_whole)
    """Of the machine's own memory; pages that several of its processes share count once."""
    own_bytes: int = attrs.field(validator=_within_resident)
    """The part that no file backs, which the system gets back only when the server ends."""
    accelerators: Mapping[str, int] = attrs.field(factory=dict, converter=_frozen, hash=False)
    """By the device's name, as in ``cuda0``; what cannot be told is left out."""
