"""How a server is connected to: over TCP, TLS or a Unix socket, which is settled once for each."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from gglib.domain.handle import ProcessHandle
from gglib.domain.server_address import ServerAddress
from gglib.errors import ServerUntrusted

__all__ = ["Dialer", "dialer_for"]

P = TypeVar("P", bound=asyncio.Protocol)


class Dialer(ABC):
    """Opens connections to one server."""

    @abstractmethod
    async def open(self, make: Callable[[], P]) -> P:
        """Open a connection for a protocol of the caller's.

        Raises:
            OSError: the server does not accept one.
            ServerUntrusted: it has a certificate that is not trusted.
        """

    async def trust(self) -> ssl.SSLContext | None:
        """Return by what the server is told from others; ``None``: nobody else could be there.

        Raises:
            ServerUntrusted: what should tell cannot be read.
        """
        return None


class _TcpDialer(Dialer):
    def __init__(self, address: ServerAddress) -> None:
        self._host = address.host
        self._port = address.port

    async def open(self, make: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(make, self._host, self._port)
        return protocol


class _UnixDialer(Dialer):
    def __init__(self, path: str) -> None:
        self._path = path

    async def open(self, make: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_unix_connection(make, self._path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None
        return protocol


class _TlsDialer(Dialer):
    def __init__(self, address: ServerAddress, ca_file: str | None) -> None:
        self._address = address
        self._ca_file = ca_file
        self._trust: ssl.SSLContext | None = None

    async def open(self, make: Callable[[], P]) -> P:
        address = self._address
        trust = self._trust or await self.trust()
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(make, address.host, address.port, ssl=trust)
        except ssl.SSLCertVerificationError as error:
            raise ServerUntrusted(str(address), error.verify_message) from None
        except ssl.SSLError as error:
            raise OSError(f"no TLS at {address}: {error.reason or error}") from None
        return protocol

    async def trust(self) -> ssl.SSLContext:
        if self._trust is None:
            try:
                # The system's authorities take 0.1 s to read.
                trust = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file)
            except OSError as error:
                reason = f"its ca_file {self._ca_file} cannot be read: {error.strerror or error}"
                raise ServerUntrusted(str(self._address), reason) from None
            trust.set_alpn_protocols(["http/1.1"])
            self._trust = trust
        return self._trust


def dialer_for(handle: ProcessHandle, address: ServerAddress) -> Dialer:
    """Return what opens connections to the server of ``handle``, which is at ``address``."""
    if address.socket_path is not None:
        return _UnixDialer(address.socket_path)
    if address.is_tls:
        return _TlsDialer(address, handle.ca_file)
    return _TcpDialer(address)
