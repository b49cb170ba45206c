"""The installation and the machine's clock."""

from __future__ import annotations

import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gglib
from gglib import __version__
from gglib.cli.doctor.findings import OK, WARNING, Finding

__all__ = ["clock_finding", "versions_finding"]

_PACKAGES = ("xllamacpp", "uvicorn", "litestar", "sqlalchemy")
#: Time zones and file systems may differ by so much.
_TOLERANCE_S = 2 * 86400.0


def versions_finding() -> Finding:
    """Return what is installed."""
    packages = []
    for package in _PACKAGES:
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            packages.append(f"{package} missing")
    python = f"Python {platform.python_version()} on {sys.platform}"
    return Finding("versions", OK, f"gglib {__version__}, {python}, {', '.join(packages)}")


def clock_finding(now: float | None = None) -> Finding:
    """Return whether the clock can be right: it is not before gglib was installed.

    Keys' expiry, idle times and certificates go by it.
    """
    now = time.time() if now is None else now
    shown = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        installed_at = Path(gglib.__file__).stat().st_mtime
    except OSError:
        installed_at = 0.0
    if now < installed_at - _TOLERANCE_S:
        then = f"{datetime.fromtimestamp(installed_at, UTC):%Y-%m-%d}"
        detail = f"it says {shown}, and gglib was installed on {then}"
        return Finding("clock", WARNING, detail, "set it: timedatectl set-ntp true")
    return Finding("clock", OK, shown)
