"""Releases of llama.cpp as GitHub has them, on a server of this machine."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from support.file_server import FileServer

__all__ = ["Entry", "put_release", "server_program", "tar_gz", "zipped"]

_HELP = Path(__file__).parents[1] / "unit" / "engines" / "golden" / "help-new.txt"

#: A member of an archive: its name and content, or what it is instead of a file.
Entry = tuple[str, bytes] | tarfile.TarInfo


def server_program(version: str = "11434", *, serves: bool = False) -> bytes:
    """Return a program that answers as a llama-server does; if it ``serves``, it is a real one."""
    real = f"exec {shlex.quote(sys.executable)} -P -m gglib_adapters.engines.embedded_server"
    shown = f'{real} "$@"' if serves else f"cat {shlex.quote(str(_HELP))}"
    return f"""#!/bin/sh
case "$1" in
--version) echo "version: {version} (abc)" >&2 ;;
--help) {shown} ;;
*) {f'{real} "$@"' if serves else "exec sleep 60"} ;;
esac
""".encode()


def tar_gz(entries: Iterable[Entry]) -> bytes:
    """Return an archive of these; programs are those without a dot in their names."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            name, content = entry
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644 if "." in name.rpartition("/")[2] else 0o755
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def zipped(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip of these."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return made.getvalue()


def put_release(
    server: FileServer, tag: str, archives: Mapping[str, bytes], *, digests: bool = True
) -> str:
    """Have ``server`` release these; return its URL, as ``release_url`` takes it."""
    assets = []
    for name, content in archives.items():
        url = server.put(f"/releases/download/{tag}/{name}", content)
        asset = {"name": name, "browser_download_url": url, "size": len(content)}
        if digests:
            asset["digest"] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assets.append(asset)
    document = {"tag_name": tag, "assets": assets}
    server.put(f"/releases/tags/{tag}", json.dumps(document).encode())
    return f"{server.address}/releases"
