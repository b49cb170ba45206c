"""What only some installations have."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess

import pytest

__all__ = [
    "require_curl",
    "require_embedded_engine",
    "require_namespaces",
    "require_openssl",
    "require_sshd",
]


def require_embedded_engine() -> None:
    """Skip the test without the extra, unless the run must have it."""
    if importlib.util.find_spec("xllamacpp") is None:
        _do_without("engine", "xllamacpp is not installed")


def require_curl() -> str:
    """Return where curl is; skip the test without it, unless the run must have it."""
    return _require_program("curl")


def require_openssl() -> str:
    """Return where OpenSSL's command is; skip the test without it, unless the run must have it."""
    return _require_program("openssl")


def _require_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        _do_without(name, f"{name} is not installed")
    assert found is not None
    return found


def require_sshd() -> str:
    """Return where OpenSSH's server is; skip the test without it, unless the run must have it."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        _do_without("ssh", "OpenSSH's server and client are not both installed")
    assert found is not None
    return found


def require_namespaces() -> None:
    """Skip the test where no networks can be made, unless the run must have them."""
    if any(shutil.which(program) is None for program in ("ip", "nsenter", "unshare")):
        _do_without("netns", "ip, nsenter and unshare are not all installed")
    made = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    if made.returncode != 0:
        _do_without("netns", "this user may not make namespaces of networks and mounts")


def _do_without(part: str, reason: str) -> None:
    if part in os.environ.get("GGLIB_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)
