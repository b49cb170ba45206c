"""Domain values as JSON in a column, and back."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from gglib.domain.serialization import from_json, unstructure
from gglib_adapters.database import Database

__all__ = ["read_document", "to_document"]

T = TypeVar("T")


def to_document(value: Any) -> str:
    """Return ``value`` as JSON in ASCII: a file's name need not be text that SQLite takes."""
    return json.dumps(unstructure(value), separators=(",", ":"))


def read_document(database: Database, what: str, document: str, kind: type[T]) -> T:
    """Return the ``kind`` that ``document`` holds.

    Raises:
        DatabaseCorrupt: it holds none; says ``what`` it was.
    """
    try:
        return from_json(document, kind)
    except Exception as error:
        # A converter raises whatever its types raise; none of it means anything else here.
        raise database.damaged(f"{what} cannot be read: {error}") from error
