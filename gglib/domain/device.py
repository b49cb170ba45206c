"""The memory that a machine has for models: its own, and that of its accelerators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from gglib.domain.validation import at_least, text
from gglib.errors import InvalidValue

__all__ = ["CPU", "Device", "DeviceSurvey"]

#: The name and the kind of the machine's own memory.
CPU = "cpu"


_whole = at_least(0, optional=False)


def _within_total(instance: Any, attribute: Any, value: Any) -> None:
    _whole(instance, attribute, value)
    if value > instance.total_bytes:
        raise InvalidValue(attribute.name, value, f"at most total_bytes, {instance.total_bytes}")


@attrs.frozen(kw_only=True)
class Device:
    """Memory that models can be loaded into. Sizes are in bytes.

    ``total_bytes`` is what this process and its children may ever have of it, ``free_bytes``
    what they could have now, with whatever the system would give back counted as free.
    """

    name: str = attrs.field(validator=text(optional=False))
    """``cpu`` for the machine's own; ``cuda0``, ``cuda1`` … as an engine started here counts."""
    kind: str = attrs.field(validator=text(optional=False))
    """``cpu``, ``cuda`` …: the name without its number."""
    total_bytes: int = attrs.field(validator=_whole)
    free_bytes: int = attrs.field(validator=_within_total)
    description: str = ""
    """For people: the product's name, or what limits it."""
    identifier: str | None = attrs.field(default=None, validator=text())
    """What tells it from all others, whatever its number: a GPU's UUID."""


def _devices(value: Iterable[Device]) -> tuple[Device, ...]:
    return tuple(value)


def _notes(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class DeviceSurvey:
    """What was found at one look: devices, and a line for each that could not be read."""

    devices: tuple[Device, ...] = attrs.field(default=(), converter=_devices)
    notes: tuple[str, ...] = attrs.field(default=(), converter=_notes)
    machine: str | None = None
    """What the machine has alone until it is started anew: its kernel's boot id; else not told."""

    @property
    def cpu(self) -> Device | None:
        """The machine's own memory."""
        return next((device for device in self.devices if device.kind == CPU), None)

    @property
    def accelerators(self) -> tuple[Device, ...]:
        """All but the machine's own memory, in their order."""
        return tuple(device for device in self.devices if device.kind != CPU)
