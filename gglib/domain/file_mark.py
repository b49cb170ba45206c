"""What a model's file was when it was read, to tell later whether it has changed."""

from __future__ import annotations

import re
from typing import Any

import attrs

from gglib.domain.validation import between
from gglib.errors import InvalidValue

__all__ = ["FileMark", "same_files"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


def _digest(_instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not _DIGEST.fullmatch(value)):
        raise InvalidValue(attribute.name, value, "64 hexadecimal digits in lower case")


@attrs.frozen(kw_only=True)
class FileMark:
    """One file, as it was. ``sha256`` is known once its bytes were read, all of them."""

    size_bytes: int = attrs.field(validator=between(0, 2**63 - 1, optional=False))
    mtime_ns: int = attrs.field(validator=between(-(2**63), 2**63 - 1, optional=False))
    """When it was last written, in nanoseconds since 1970, by its file system."""
    sha256: str | None = attrs.field(default=None, validator=_digest)


def same_files(one: tuple[FileMark, ...], other: tuple[FileMark, ...]) -> bool:
    """Whether sizes and times are the same: then the bytes are taken to be so, too."""
    return [(mark.size_bytes, mark.mtime_ns) for mark in one] == [
        (mark.size_bytes, mark.mtime_ns) for mark in other
    ]
