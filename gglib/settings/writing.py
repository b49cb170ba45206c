"""A settings file, made by gglib: whole, right, and for its owner alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gglib.settings.load import load_settings

__all__ = ["as_toml", "write_settings"]


def as_toml(settings: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """Return settings as the text of a file, with ``comments`` above them, one a line."""
    import tomli_w

    head = "".join(f"# {_plain(comment)}\n" for comment in comments)
    return (head + "\n" if head else "") + tomli_w.dumps(settings)


def _plain(comment: str) -> str:
    """Return a comment on one line, with nothing that TOML has no place for."""
    return "".join(each if each.isprintable() else "·" for each in " ".join(comment.split()))


def write_settings(path: Path, text: str, *, replace: bool) -> bool:
    """Write a settings file, if nobody has one there already; whether it was written.

    What cannot be loaded is not written. The file may hold keys: it is its owner's alone.

    Raises:
        ConfigurationError: ``text`` makes no settings.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        load_settings(flags={"config": made}, environ={})
        if replace:
            made.replace(path)
            return True
        try:
            # A link, unlike a rename, never takes the place of what is there.
            path.hardlink_to(made)
        except FileExistsError:
            return False
        return True
    finally:
        made.unlink(missing_ok=True)
