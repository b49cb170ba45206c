"""Looking at servers from outside their runner."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import psutil

from gglib.domain.server_address import ServerAddress

__all__ = ["ask_stub", "lives", "port_answers", "stranger_on"]


def lives(pid: int | None) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def port_answers(port: int) -> bool:
    """Return whether somebody listens on ``port`` of this machine."""
    with closing(socket.socket()) as trial:
        trial.settimeout(1)
        return trial.connect_ex(("127.0.0.1", port)) == 0


def ask_stub(base_url: str, path: str, body: str) -> None:
    """Send gglib's stub server at ``base_url`` a command."""
    address = ServerAddress.parse(base_url)
    with closing(HTTPConnection(address.host_header, timeout=10)) as connection:
        if address.socket_path is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(address.socket_path)
        connection.request("POST", path, body=body.encode())
        answer = connection.getresponse()
        assert answer.status == 200, f"the stub server at {base_url} answered {answer.status}"


@contextmanager
def stranger_on(port: int = 0, *, share: bool = False) -> Iterator[int]:
    """Hold a port and answer 200 to everybody, as an old server would; give its number.

    ``share``: let others of the same mind listen there too.
    """
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
