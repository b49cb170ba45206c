"""Every error there is, and one of each."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import attrs

from gglib import errors
from gglib.errors import GglibError

__all__ = ["ERRORS", "ERROR_FIELDS", "error_sample"]

#: Every class of the tree, families included.
ERRORS: list[type[Any]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GglibError)
]

#: A value for each field that an error may have.
ERROR_FIELDS: dict[str, Any] = {
    "actual": "0f" * 32,
    "address": "http://127.0.0.1:1",
    "available_bytes": 3 << 30,
    "backup": Path("/backup.db"),
    "candidates": ("one", "two"),
    "close_names": ("near", "nearer"),
    "code": "some_code",
    "data_dir": Path("/data"),
    "detail": "it fell over",
    "device": "gpu0",
    "engine": "some-engine",
    "exit_status": 3,
    "expected": "something else",
    "failure": "it fell over",
    "field": "some_field",
    "fix": "mend it",
    "found": "0099",
    "group": "gglib.engines",
    "holder": "somebody",
    "known_sources": ("hub", "zoo"),
    "limit": 256,
    "line": 12,
    "log_tail": ("first line", "last line", "  "),
    "message": "some message",
    "model": "some-model",
    "name": "some-name",
    "needed_bytes": 7 << 30,
    "node": "some-node",
    "others_missing": (Path("one.gguf"), Path("two.gguf")),
    "param": "some_param",
    "part": "the part",
    "path": Path("/some/path"),
    "pid": 4321,
    "pids": (11, 22),
    "pinned": ("one", "two"),
    "port": 8080,
    "pull": "some-pull",
    "reason": "some reason",
    "reasons": ("on box: some reason", "on attic: another"),
    "remedy": "do that",
    "retry_after_s": 5.0,
    "server": "some-server",
    "source": "gglib.toml",
    "status": 403,
    "step": "some step",
    "supported": "0042",
    "timeout_s": 60.0,
    "url": "https://host/file",
    "value": "some value",
    "version": "b123",
    "waited_s": 9.0,
    "ways": ("install it", "build it"),
    "what": "requests",
}


def error_sample(kind: type[Any]) -> Any:
    """Return an error with every field filled; of a family, one without any."""
    fields = attrs.fields(kind) if attrs.has(kind) else ()
    return kind(**{field.name: ERROR_FIELDS[field.name] for field in fields})
