"""Identifiers: ULIDs, sortable by time and safe in paths, URLs and environments."""

from __future__ import annotations

import re

from ulid import ULID

from gglib.errors import InvalidValue

__all__ = ["check_server_id", "new_server_id"]

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_server_id() -> str:
    """Return a fresh ULID."""
    return str(ULID())


def check_server_id(value: str) -> str:
    """Return ``value`` if it is a ULID, else raise ``InvalidValue``."""
    if not _ULID.fullmatch(value):
        raise InvalidValue("server_id", value, "a ULID (26 characters)")
    return value
