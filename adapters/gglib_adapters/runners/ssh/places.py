"""Where a runner's sockets lie: a private folder with a path short enough for the kernel."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

import psutil

from gglib.errors import DataDirectoryUnusable

__all__ = ["control_socket", "site_name", "socket_folder"]

#: A socket's path has 107 bytes at the most, of which ssh needs 17 for itself and names the rest.
_LONGEST_FOLDER = 60
#: What means nothing to ssh in ``-L`` and ``-S``, and in a URL.
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def socket_folder(data_dir: Path, runner: str) -> Path:
    """Return the folder, the same for the same data directory; it exists and is private.

    Raises:
        DataDirectoryUnusable: it cannot be made, or is somebody else's.
    """
    name = hashlib.sha256(f"{data_dir.resolve()}\0{runner}".encode()).hexdigest()[:12]
    folder = data_dir.resolve() / "ssh" / name
    if len(str(folder)) > _LONGEST_FOLDER or not _PLAIN.fullmatch(str(folder)):
        folder = Path(tempfile.gettempdir()) / f"gglib-{os.getuid()}-{name}"
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise DataDirectoryUnusable(folder, str(error.strerror)) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise DataDirectoryUnusable(folder, "it is not private to this user; remove it")
    _clear(folder)
    return folder


def control_socket(folder: Path) -> Path:
    """Return a new path for the socket by which this process's ssh commands share a connection."""
    return folder / f"c{os.getpid()}-{secrets.token_hex(3)}"


def _clear(folder: Path) -> None:
    """Remove the control sockets of processes that were killed."""
    for path in folder.glob("c*-*"):
        pid = path.name[1:].partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)


def site_name(data_dir: Path, runner: str) -> str:
    """Return what tells this data directory's servers there from those of any other gglib.

    Raises:
        DataDirectoryUnusable: it cannot be written.
    """
    file = data_dir / "ssh" / "site"
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            token = file.read_text()
        else:
            token = secrets.token_hex(16)
            with os.fdopen(descriptor, "w") as made:
                made.write(token)
    except OSError as error:
        raise DataDirectoryUnusable(file, str(error.strerror)) from error
    return hashlib.sha256(f"{token}\0{runner}".encode()).hexdigest()[:24]
