"""Where a server is reached: the forms of a base URL, read in one place."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import attrs

from gglib.domain.validation import stating
from gglib.errors import InvalidValue

__all__ = ["ServerAddress", "base_url", "certificate_refusal"]

_FORMS = "http://HOST:PORT, https://HOST:PORT (a path may follow), or http+unix:///PATH/TO/SOCKET"
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?")
#: What a request's target may have in it as it is, but for what begins a query or a fragment.
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNIX = "http+unix"


@attrs.frozen(kw_only=True)
class ServerAddress:
    """A base URL, taken apart. It is either a host and a port, or a Unix socket."""

    host: str = "localhost"
    """A name, or an address without brackets; what requests over a socket name as their host."""
    port: int = 0
    """0 with a Unix socket."""
    is_tls: bool = False
    socket_path: str | None = None
    path_prefix: str = ""
    """What every path begins with: empty, or ``/…`` without a slash at its end."""

    @classmethod
    def parse(cls, url: str) -> ServerAddress:
        """Return what ``url`` says.

        Raises:
            InvalidValue: it is none of the three forms.
        """
        scheme, separator, rest = url.partition("://")
        scheme = scheme.lower()
        if separator and scheme == _UNIX:
            return cls(socket_path=_socket_path(url, rest))
        if not separator or scheme not in _DEFAULT_PORTS:
            raise _no_base_url(url)
        authority, slash, path = rest.partition("/")
        found = _AUTHORITY.fullmatch(authority)
        if found is None or not _PATH.fullmatch(slash + path):
            raise _no_base_url(url)
        address, name, port = found.groups()
        if address is not None and not _is_ipv6(address):
            raise _no_base_url(url)
        number = int(port) if port else _DEFAULT_PORTS[scheme]
        if not 1 <= number <= 65_535:
            raise _no_base_url(url)
        return cls(
            host=address or name,
            port=number,
            is_tls=scheme == "https",
            path_prefix=(slash + path).rstrip("/"),
        )

    @property
    def host_header(self) -> str:
        """What a request says as its ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.socket_path is not None or self.port == _DEFAULT_PORTS[self._scheme]:
            return host
        return f"{host}:{self.port}"

    @property
    def http_url(self) -> str:
        """The base of what an HTTP library is asked for, which is told of a socket besides."""
        return f"{self._scheme}://{self.host_header}{self.path_prefix}"

    @property
    def _scheme(self) -> str:
        return "https" if self.is_tls else "http"

    def __str__(self) -> str:
        """Return the base URL."""
        if self.socket_path is None:
            return self.http_url
        return f"{_UNIX}://{quote(self.socket_path.encode(errors='surrogateescape'))}"


def _socket_path(url: str, rest: str) -> str:
    path = unquote_to_bytes(rest).decode(errors="surrogateescape")
    if not path.startswith("/") or path.endswith("/") or "\0" in path or {"?", "#"} & set(rest):
        raise _no_base_url(url)
    return path


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _no_base_url(url: object) -> InvalidValue:
    # A password in it is not repeated.
    shown = re.sub(r"//.*@", "//…@", url, flags=re.S) if isinstance(url, str) else url
    return InvalidValue("base_url", shown, _FORMS)


def certificate_refusal(error: BaseException) -> str | None:
    """Return why a certificate was refused, if that is what ``error`` comes from."""
    cause: BaseException | None = error
    while cause is not None:
        # An ssl.SSLCertVerificationError, at the bottom of a library's own errors.
        if isinstance(reason := getattr(cause, "verify_message", None), str):
            return reason
        cause = cause.__cause__ or cause.__context__
    return None


@stating({"type": "string"})
def base_url(_instance: Any, _attribute: Any, value: Any) -> None:
    """Accept what ``ServerAddress`` can read."""
    if not isinstance(value, str):
        raise _no_base_url(value)
    ServerAddress.parse(value)
