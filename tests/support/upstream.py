"""An engine of the test's own: answers over a real socket, as each request's body asks."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import ByteStream, Listener
from anyio.streams.tls import TLSListener

__all__ = ["Received", "ScriptedUpstream"]


@dataclass
class Received:
    """One request as the engine saw it."""

    head: bytes
    body: bytes
    connection: int
    behind: bytes = b""
    """What had come after it by then."""

    def header(self, name: str) -> str | None:
        """Return a header's value, or None."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


def _script_of(request: Received, unasked: str) -> str:
    """Return what a request wants done; what is no JSON object is echoed."""
    if request.head.startswith(b"HEAD "):
        return "head"
    if request.header("upgrade") is not None:
        return "upgrade"
    try:
        return str(json.loads(request.body).get("do", unasked))
    except ValueError:
        return "echo"


@dataclass
class ScriptedUpstream:
    """Each request names what it wants done in ``"do"``; the default echoes it.

    ``unasked`` is done for requests that cannot say: others have written them.
    """

    port: int = 0
    unasked: str = "echo"
    events: list[bytes] = field(default_factory=list)
    """What ``events`` streams."""
    received: list[Received] = field(default_factory=list)
    disconnects: int = 0
    gates: dict[str, anyio.Event] = field(default_factory=dict)
    reached: dict[str, anyio.Event] = field(default_factory=dict)
    connections: int = 0
    sent: int = 0
    """How many events were sent of an endless stream."""
    gone: anyio.Event = field(default_factory=anyio.Event)
    socket_path: Path | None = None
    """Where it listens, if not on a port."""
    certificate: ssl.SSLContext | None = None
    """By which it proves who it is, as ``localhost``."""

    @property
    def base_url(self) -> str:
        """Where it is reached; before it runs, where nobody is."""
        if self.socket_path is not None:
            return f"http+unix://{self.socket_path}"
        place = "https://localhost" if self.certificate else "http://127.0.0.1"
        return f"{place}:{self.port or 1}"

    def gate(self, name: str) -> anyio.Event:
        """Return the event that the engine waits for at a point of a script."""
        return self.gates.setdefault(name, anyio.Event())

    def reach(self, name: str) -> anyio.Event:
        """Return the event that the engine sets when it comes to a point of a script."""
        return self.reached.setdefault(name, anyio.Event())

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listener: Listener[ByteStream]
        if self.socket_path is not None:
            listener = await anyio.create_unix_listener(self.socket_path)
        else:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        if self.certificate is not None:
            # One that dies says no goodbye.
            listener = TLSListener(listener, self.certificate, standard_compatible=False)
        task_status.started()
        async with listener:
            await listener.serve(self._connection)

    async def _connection(self, stream: ByteStream) -> None:
        self.connections += 1
        number = self.connections
        buffer = b""
        async with stream:
            try:
                while True:
                    while b"\r\n\r\n" not in buffer:
                        buffer += await stream.receive()
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    request = Received(head, b"", number)
                    length = int(request.header("content-length") or 0)
                    while len(buffer) < length:
                        buffer += await stream.receive()
                    request.body, buffer = buffer[:length], buffer[length:]
                    request.behind = buffer
                    self.received.append(request)
                    script = _script_of(request, self.unasked)
                    action: Callable[[ByteStream, Received], Awaitable[bool]] = getattr(
                        self, f"_do_{script}"
                    )
                    if not await action(stream, request):
                        return
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.disconnects += 1
                self.gone.set()

    async def _answer(
        self, stream: ByteStream, body: bytes, *, status: str = "200 OK", extra: str = ""
    ) -> bool:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        await stream.send(head.encode() + body)
        return True

    async def _do_echo(self, stream: ByteStream, request: Received) -> bool:
        body = json.dumps(
            {"head": request.head.decode("latin-1"), "body": request.body.decode("latin-1")}
        ).encode()
        return await self._answer(stream, body, extra="Content-Type: application/json\r\n")

    async def _do_head(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kept: yes\r\n\r\n")
        return True

    async def _do_upgrade(self, stream: ByteStream, request: Received) -> bool:
        """Change protocols, and say everything louder; end at ``bye``."""
        if b"refused" in request.head:
            return await self._answer(stream, b"no", status="403 Forbidden")
        await stream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: loud\r\n\r\n"
        )
        data = request.behind or await stream.receive()
        while data != b"bye":
            await stream.send(data.upper())
            data = await stream.receive()
        return False

    async def _do_numbered(self, stream: ByteStream, request: Received) -> bool:
        number = json.loads(request.body)["number"]
        if (delay := json.loads(request.body).get("gate")) is not None:
            self.reach(delay).set()
            await self.gate(delay).wait()
        return await self._answer(stream, f"answer {number}".encode())

    async def _do_say(self, stream: ByteStream, request: Received) -> bool:
        """Answer in ``pieces`` (texts) of the content type ``kind``, each when it has left."""
        asked = json.loads(request.body)
        pieces = [piece.encode() for piece in asked["pieces"]]
        kind = f"Content-Type: {asked.get('kind', 'application/json')}\r\n"
        if len(pieces) == 1:
            return await self._answer(stream, pieces[0], extra=kind)
        head = f"HTTP/1.1 200 OK\r\n{kind}Transfer-Encoding: chunked\r\n\r\n"
        await stream.send(head.encode())
        for piece in pieces:
            await stream.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await anyio.sleep(0.001)
        await stream.send(b"0\r\n\r\n")
        return True

    async def _stream_head(self, stream: ByteStream) -> None:
        await stream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def _do_stream(self, stream: ByteStream, request: Received) -> bool:
        await self._stream_head(stream)
        for number in range(3):
            event = b"data: %d\n\n" % number
            await stream.send(b"%x\r\n%b\r\n" % (len(event), event))
        await stream.send(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return True

    async def _do_gated_stream(self, stream: ByteStream, request: Received) -> bool:
        await self._stream_head(stream)
        await stream.send(b"9\r\ndata: 0\n\n\r\n")
        self.reach("streaming").set()
        await self.gate("go on").wait()
        await stream.send(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")
        return True

    async def _do_stream_until_gone(self, stream: ByteStream, request: Received) -> bool:
        """Begin a stream, and end when the gateway hangs up."""
        await self._stream_head(stream)
        await stream.send(b"9\r\ndata: 0\n\n\r\n")
        await stream.receive()
        return True

    async def _do_events(self, stream: ByteStream, request: Received) -> bool:
        """Stream events as they are given; an empty one waits at a gate, ``break`` hangs up."""
        await self._stream_head(stream)
        for event in self.events:
            if event == b"break":
                return False
            if not event:
                self.reach("streaming").set()
                await self.gate("go on").wait()
                continue
            await stream.send(b"%x\r\n%b\r\n" % (len(event), event))
        await stream.send(b"0\r\n\r\n")
        return True

    async def _do_events_for_ever(self, stream: ByteStream, request: Received) -> bool:
        """Stream the first event over and over, and count."""
        await self._stream_head(stream)
        event = self.events[0]
        while True:
            await stream.send(b"%x\r\n%b\r\n" % (len(event), event))
            self.sent += 1

    async def _do_events_at_the_second_try(self, stream: ByteStream, request: Received) -> bool:
        if len(self.received) == 1:
            return False
        return await self._do_events(stream, request)

    async def _do_answer(self, stream: ByteStream, request: Received) -> bool:
        """Answer with the first event, whole."""
        return await self._answer(stream, self.events[0])

    async def _do_refuse(self, stream: ByteStream, request: Received) -> bool:
        """Answer with the first event as an error."""
        status = "400 Bad Request"
        return await self._answer(stream, self.events[0], status=status)

    async def _do_endless_stream(self, stream: ByteStream, request: Received) -> bool:
        await self._stream_head(stream)
        event = b"data: " + b"x" * 16370 + b"\n\n"
        while True:
            await stream.send(b"%x\r\n%b\r\n" % (len(event), event))

    async def _do_hold(self, stream: ByteStream, request: Received) -> bool:
        """Never answer; end when the gateway hangs up."""
        self.reach("held").set()
        await stream.receive()
        return True

    async def _do_close_first(self, stream: ByteStream, request: Received) -> bool:
        return False

    async def _do_close_once(self, stream: ByteStream, request: Received) -> bool:
        if sum(b"close_once" in item.body for item in self.received) == 1:
            return False
        return await self._answer(stream, b"second time")

    async def _do_close_gated(self, stream: ByteStream, request: Received) -> bool:
        if len(self.received) > 1:
            return await self._answer(stream, b"second time")
        self.reach("closing").set()
        await self.gate("close").wait()
        return False

    async def _do_gated_close_delimited(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the")
        self.reach("closing").set()
        await self.gate("close").wait()
        return False

    async def _do_close_after(self, stream: ByteStream, request: Received) -> bool:
        """Answer whole, say nothing of closing, and close: the kept connection is stale."""
        await self._answer(stream, b"bye")
        return False

    async def _do_die_in_stream(self, stream: ByteStream, request: Received) -> bool:
        await self._stream_head(stream)
        await stream.send(b"9\r\ndata: 0\n\n\r\n")
        return False

    async def _do_die_in_chunk(self, stream: ByteStream, request: Received) -> bool:
        await self._stream_head(stream)
        await stream.send(b"ff\r\ndata: half an ev")
        return False

    async def _do_die_in_body(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        return False

    async def _do_die_in_plain_chunks(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'
        )
        return False

    async def _do_close_delimited(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        return False

    async def _do_garbage(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        return False

    async def _do_no_content(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    async def _do_early_hints(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        return await self._answer(stream, b"after hints")

    async def _do_hop_by_hop(self, stream: ByteStream, request: Received) -> bool:
        extra = (
            "Connection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nServer: e\r\n"
            "Access-Control-Allow-Origin: *\r\nX-Kept: yes\r\n"
        )
        return await self._answer(stream, b"ok", extra=extra)

    async def _do_status(self, stream: ByteStream, request: Received) -> bool:
        status = json.loads(request.body)["status"]
        return await self._answer(stream, b"{}", status=status)

    async def _do_two_answers(self, stream: ByteStream, request: Received) -> bool:
        one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
        await stream.send(one + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
        return True

    async def _do_trailers(self, stream: ByteStream, request: Received) -> bool:
        await stream.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nhi\r\n0\r\nX-Trailer: 1\r\n\r\n"
        )
        return True

    async def _do_closing(self, stream: ByteStream, request: Received) -> bool:
        await self._answer(stream, b"last", extra="Connection: close\r\n")
        return False
