"""A hub of models on this machine: the Hugging Face hub's API over real HTTP, and its CDN.

Two servers in threads, so that a redirect from the hub leads to another origin. Everything that is
sent is counted, and everything that is asked is remembered. Faults are asked for by tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Asked", "Fault", "LocalHub", "Repository", "local_hub"]

_CHUNK_BYTES = 16 << 10


@dataclass(frozen=True)
class Asked:
    """A request, as it came."""

    server: str
    method: str
    path: str
    token: str | None
    range: str | None


@dataclass(frozen=True)
class Fault:
    """What one request gets instead of its answer."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after_bytes: int | None = None
    """The body ends there, and the connection with it."""


@dataclass
class Repository:
    """One repository: its commits, the files of each, and which branch is where."""

    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    downloads: int = 0

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit of these files to a branch, and return its name."""
        seed = json.dumps([self.name, branch, len(self.commits)]).encode()
        commit = hashlib.sha1(seed).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


@dataclass
class LocalHub:
    """The hub, and what can be asked of it in tests."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    endpoint: str = ""
    cdn: str = ""
    token: str = "hf_of_the_test"
    bytes_per_s: float | None = None
    asked: list[Asked] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes of files that the CDN has sent, by SHA-256."""
    api_faults: deque[Fault] = field(default_factory=deque)
    file_faults: deque[Fault] = field(default_factory=deque)
    listing: Callable[[dict[str, Any]], Any] = lambda listed: listed
    """Changes what the hub says of a repository: to lie."""
    served: Callable[[bytes], bytes] = lambda content: content
    """Changes what the CDN sends: to lie."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    progress: threading.Condition = field(default_factory=threading.Condition)

    def add(self, name: str, files: Mapping[str, bytes], **more: Any) -> Repository:
        """Add a repository with one commit."""
        repository = self.repositories[name] = Repository(name, **more)
        repository.commit(files)
        return repository

    @property
    def sent_bytes(self) -> int:
        """All that the CDN has sent of files."""
        return sum(self.sent.values())

    def wait_sent(self, count: int, timeout: float = 120) -> None:
        """Return when the CDN has sent that much."""
        with self.progress:
            assert self.progress.wait_for(lambda: self.sent_bytes >= count, timeout)

    def of_server(self, server: str) -> list[Asked]:
        """Return what ``hub`` or ``cdn`` was asked, in order."""
        return [each for each in self.asked if each.server == server]


@contextlib.contextmanager
def local_hub() -> Iterator[LocalHub]:
    """Run a hub and its CDN for the block."""
    hub = LocalHub()
    with _serving(_HubHandler, hub) as endpoint, _serving(_CdnHandler, hub) as cdn:
        hub.endpoint, hub.cdn = endpoint, cdn
        yield hub


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[_Handler], hub: LocalHub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed are what is tested."""


@contextlib.contextmanager
def _serving(handler: type[_Handler], hub: LocalHub) -> Iterator[str]:
    server = _Server(handler, hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    @property
    def hub(self) -> LocalHub:
        server = self.server
        assert isinstance(server, _Server)
        return server.hub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        authorization = self.headers.get("authorization")
        asked = Asked(self.name, self.command, self.path, authorization, self.headers.get("range"))
        with self.hub.lock:
            self.hub.asked.append(asked)
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"content-type": "application/json"})

    def fail_as_told(self, faults: deque[Fault]) -> Fault | None:
        """Answer with a fault if one waits that has a status, and return it, or what is to cut."""
        with self.hub.lock:
            fault = faults.popleft() if faults else None
        if fault is not None and fault.cut_after_bytes is None:
            self.send(fault.status, fault.body or b"", fault.headers)
        return fault


class _HubHandler(_Handler):
    name = "hub"

    def answer(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path
        if path.startswith("/api/"):
            if self.fail_as_told(self.hub.api_faults) is not None:
                return
            if path == "/api/models":
                self.search(parse_qs(parts.query))
                return
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.tell(match[1], unquote(match[2] or "main"))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(match[1], unquote(match[2]), unquote(match[3]))
        else:
            self.send(404, b"Not Found")

    def search(self, query: Mapping[str, list[str]]) -> None:
        text = query.get("search", [""])[0].casefold()
        author = query.get("author", [""])[0]
        found = [
            each
            for each in self.hub.repositories.values()
            if text in each.name.casefold() and each.name.startswith(f"{author}/" if author else "")
        ]
        found.sort(key=lambda each: -each.downloads)
        limit = int(query.get("limit", ["100"])[0])
        self.send_json(
            [
                {
                    "_id": "0",
                    "id": each.name,
                    "modelId": each.name,
                    "downloads": each.downloads,
                    "likes": 3,
                    "gated": "auto" if each.gated else False,
                    "private": each.private,
                    "lastModified": "2026-01-02T03:04:05.000Z",
                    "tags": ["gguf"],
                }
                for each in found[:limit]
                if not each.private
            ]
        )

    def find(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """Return a repository and its commit, or answer why not."""
        repository = self.hub.repositories.get(name)
        known = self.headers.get("authorization") == f"Bearer {self.hub.token}"
        if repository is None or (repository.private and not known):
            status = 404 if known else 401
            self.send(status, b'{"error":"Repository not found"}', {"x-error-code": "RepoNotFound"})
            return None
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            headers = {"x-error-code": "RevisionNotFound"}
            self.send(404, b'{"error":"Invalid rev id"}', headers)
            return None
        return repository, commit

    def tell(self, name: str, revision: str) -> None:
        found = self.find(name, revision)
        if found is None:
            return
        repository, commit = found
        siblings = []
        for path, content in repository.commits[commit].items():
            sha256 = hashlib.sha256(content).hexdigest()
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": "0" * 40}
            if path.endswith(".gguf"):
                lfs = {"sha256": sha256, "size": len(content), "pointerSize": 134}
                sibling |= {"blobId": sha256[:40], "lfs": lfs}
            siblings.append(sibling)
        listed = {
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": commit,
            "gated": "auto" if repository.gated else False,
            "private": repository.private,
            "tags": ["gguf"],
            "downloads": repository.downloads,
            "siblings": siblings,
        }
        self.send_json(self.hub.listing(listed))

    def resolve(self, name: str, revision: str, path: str) -> None:
        found = self.find(name, revision)
        if found is None:
            return
        repository, commit = found
        known = self.headers.get("authorization") == f"Bearer {self.hub.token}"
        if repository.gated and not known:
            headers = {"x-error-code": "GatedRepo", "x-error-message": "Access is restricted"}
            self.send(401 if self.headers.get("authorization") is None else 403, b"", headers)
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self.send(404, b"Entry not found", {"x-error-code": "EntryNotFound"})
            return
        sha256 = hashlib.sha256(content).hexdigest()
        with self.hub.lock:
            self.hub.blobs[sha256] = content
        self.send(
            302,
            headers={
                "location": f"{self.hub.cdn}/{sha256}?X-Signature=secret",
                "x-repo-commit": commit,
                "x-linked-size": str(len(content)),
                "x-linked-etag": f'"{sha256}"',
                "etag": f'"{sha256}"',
            },
        )


class _CdnHandler(_Handler):
    name = "cdn"

    def answer(self) -> None:
        fault = self.fail_as_told(self.hub.file_faults)
        if fault is not None and fault.cut_after_bytes is None:
            return
        sha256 = urlsplit(self.path).path[1:]
        content = self.hub.served(self.hub.blobs[sha256])
        etag = f'"{sha256}"'
        first = 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or "")
        if match and self.headers.get("if-range", etag) == etag:
            first = int(match[1])
        if first and first >= len(content):
            self.send(416, headers={"content-range": f"bytes */{len(content)}", "etag": etag})
            return
        self.send_response(206 if first else 200)
        self.send_header("etag", etag)
        self.send_header("accept-ranges", "bytes")
        self.send_header("content-length", str(len(content) - first))
        if first:
            self.send_header("content-range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command != "HEAD":
            self.pour(sha256, content[first:], fault)

    def pour(self, sha256: str, content: bytes, fault: Fault | None) -> None:
        """Send a body, no faster than the client takes it, counted as it goes."""
        # Little may be on its way: what a killed client did not read was not fetched for it.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK_BYTES)
        end = len(content)
        if fault is not None and fault.cut_after_bytes is not None:
            end = min(end, fault.cut_after_bytes)
        began = time.monotonic()
        for start in range(0, end, _CHUNK_BYTES):
            chunk = content[start : min(end, start + _CHUNK_BYTES)]
            self.wfile.write(chunk)
            with self.hub.progress:
                self.hub.sent[sha256] = self.hub.sent.get(sha256, 0) + len(chunk)
                self.hub.progress.notify_all()
            if self.hub.bytes_per_s is not None:
                ahead_s = (start + len(chunk)) / self.hub.bytes_per_s - (time.monotonic() - began)
                if ahead_s > 0:
                    time.sleep(ahead_s)  # the speed of a line, not a synchronisation
        if end < len(content):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
