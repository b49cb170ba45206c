"""The gateway's certificate: read, checked, shown to clients, and taken anew while it runs."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import attrs

from gglib.errors import ConfigurationError
from gglib.gateway.pinning import pinned
from gglib.settings import GatewaySettings
from gglib.settings.private_file import read_private, refuse_readable_by_others

__all__ = ["Certificate", "ServerTls", "read_certificate"]

_LIMIT_BYTES = 1 << 20
#: More rounds than any handshake takes.
_ROUNDS = 10


@attrs.frozen
class Certificate:
    """A certificate with its key, fit to be shown."""

    context: ssl.SSLContext = attrs.field(eq=False, repr=False)
    pem: str
    """The gateway's own, without those of authorities."""
    names: frozenset[str]
    """The host names that it holds for, but for patterns."""


class ServerTls:
    """What a listener proves with who it is. What is shown may change; what listens stays."""

    __slots__ = ("certificate", "context")

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["http/1.1"])
        # Asked at each handshake, whether or not the client names a host.
        self.context.sni_callback = self._show

    def change(self, certificate: Certificate) -> None:
        """Show another one to those who come from now on."""
        self.certificate = certificate

    def _show(self, handshake: ssl.SSLObject, _host: str | None, _first: ssl.SSLContext) -> None:
        handshake.context = self.certificate.context


def read_certificate(settings: GatewaySettings) -> Certificate | None:
    """Return the certificate that the settings name; ``None``: they name none.

    Raises:
        ConfigurationError: a file cannot be read, is none, does not belong to the other, or
            holds a secret that others can read.
    """
    chain, key = settings.tls_certificate, settings.tls_key
    if chain is None:
        return None
    key = key or chain
    _check_file(chain, "tls_certificate")
    _check_file(key, "tls_key")
    refuse_readable_by_others(key, "the private key in it")
    password = None
    if settings.tls_key_password_file is not None:
        password = read_private(settings.tls_key_password_file, "the password in it")
    context = _context(chain, key, password)
    return _described(context, chain)


def _check_file(path: Path, setting: str) -> None:
    try:
        size_bytes = path.stat().st_size
        if not path.is_file() or size_bytes > _LIMIT_BYTES:
            raise ConfigurationError(f"gateway.{setting}: not a PEM file", str(path))
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"gateway.{setting}: {reason}", str(path)) from None


def _context(chain: Path, key: Path, password: bytes | None) -> ssl.SSLContext:
    asked = False

    def tell_password() -> bytes:
        # Without this, OpenSSL would ask at the terminal.
        nonlocal asked
        asked = True
        return password or b""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password=tell_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _failure(chain, key, error, asked=asked, has_password=password is not None) from None
    return context


def _failure(
    chain: Path, key: Path, error: Exception, *, asked: bool, has_password: bool
) -> ConfigurationError:
    """Return what is wrong, and with which of the files: OpenSSL does not say."""
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        message = f"gateway.tls_key: it is not the key of the certificate {chain}"
        return ConfigurationError(message, str(key))
    if asked:
        remedy = (
            "the password in tls_key_password_file does not open it"
            if has_password
            else "it is encrypted; tls_key_password_file says where its password is"
        )
        return ConfigurationError(f"gateway.tls_key: {remedy}", str(key))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(chain)
    except (ssl.SSLError, OSError, ValueError):
        return ConfigurationError("gateway.tls_certificate: no certificate in PEM", str(chain))
    return ConfigurationError("gateway.tls_key: no private key in PEM", str(key))


def _described(context: ssl.SSLContext, chain: Path) -> Certificate:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    try:
        shown = _shaken(stranger, context).getpeercert(binary_form=True)
        assert shown is not None
        pem = ssl.DER_cert_to_PEM_cert(shown)
        known = _shaken(pinned(pem), context).getpeercert()
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or str(error)
        message = f"gateway.tls_certificate: no client would take it: {reason}"
        raise ConfigurationError(message, str(chain)) from None
    names: Any = (known or {}).get("subjectAltName", ())
    hosts = {name.lower() for kind, name in names if kind == "DNS" and "*" not in name}
    return Certificate(context, pem, frozenset(hosts))


def _shaken(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """Return the client's side of a handshake with ourselves, in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname=None)
    theirs = server.wrap_bio(up, down, server_side=True)
    for _ in range(_ROUNDS):
        waits = False
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waits = True
        if not waits:
            break
    return ours
