"""The socket that the gateway listens on."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable

from gglib.errors import ConfigurationError, PortInUse

__all__ = ["bind", "is_loopback", "url_of"]

_BACKLOG = 2048


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int, *, holder: Callable[[int], str | None]) -> socket.socket:
    """Return a listening socket; port 0 lets the system choose.

    Raises:
        PortInUse: somebody listens there; names them if ``holder`` can tell.
        ConfigurationError: this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigurationError(f"host '{host}' is not an address: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(port, holder(port)) from None
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from None
    return listener


def url_of(listener: socket.socket, host: str, *, scheme: str = "http") -> str:
    """Return the address at which this machine reaches ``listener``."""
    port = listener.getsockname()[1]
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
