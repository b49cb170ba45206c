"""Files with a secret in them, which must not be everybody's to read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gglib.errors import ConfigurationError
from gglib.settings.file import is_private_group

__all__ = ["read_private", "refuse_readable_by_others"]

_LIMIT_BYTES = 4096


def refuse_readable_by_others(path: Path, what: str) -> None:
    """Return if only its owner, or a group that root has chosen, can read the file.

    Raises:
        ConfigurationError: others can; ``what`` of it is no secret then. Or it is not there.
    """
    if os.name != "posix":
        return
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(error.strerror or str(error), str(path)) from None
    everybody = found.st_mode & stat.S_IROTH
    # As distributions keep keys: root's, and readable by a group for that.
    group = found.st_mode & stat.S_IRGRP and found.st_uid != 0 and not is_private_group(found)
    if everybody or group:
        raise ConfigurationError(
            f"others can read {what}, which is refused; chmod go-rwx '{path}'", str(path)
        )


def read_private(path: Path, what: str) -> bytes:
    """Return what the file holds, without a line's end.

    Raises:
        ConfigurationError: it cannot be read, is too long, or others can read it.
    """
    refuse_readable_by_others(path, what)
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(error.strerror or str(error), str(path)) from None
    if len(content) > _LIMIT_BYTES:
        raise ConfigurationError(f"longer than {_LIMIT_BYTES} bytes", str(path))
    return content.rstrip(b"\r\n")
