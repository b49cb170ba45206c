"""Certificates of an authority that only a test trusts."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

__all__ = ["Authority"]


class Authority:
    """Issues certificates into a folder. ``ca_file`` is what those trust who trust it."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)

    def issue(
        self, *names: str, file: str = "server", ends_at: datetime.datetime | None = None
    ) -> tuple[Path, Path]:
        """Write a certificate for these names and its key, over those of that name; return both."""
        issued = self._authority.issue_cert(*names, not_after=ends_at)
        certificate, key = self._folder / f"{file}.pem", self._folder / f"{file}-key.pem"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return by what a server of these names proves who it is."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what trusts this authority, and nobody else."""
        return ssl.create_default_context(cafile=self.ca_file)
