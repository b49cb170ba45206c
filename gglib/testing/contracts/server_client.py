"""What every client of servers promises."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import anyio
import pytest

from gglib.ports.context import AdapterContext
from gglib.ports.server_client import ServerClient, ServerProps
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import CANCEL_AFTER, Contract, cancelled_after
from gglib.testing.contracts.scripted_server import Answer, Peer, http_answer, serve_scripted

__all__ = ["OpenServerClient", "ServerClientContract"]

#: A server client adapter's factory.
OpenServerClient: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ServerClient]]

_PATIENCE_S = 30.0
_PAUSE_S = 0.005
#: The promised 2 seconds, and what a busy machine may add.
_LONGEST_S = 4.0
_QUICK_S = 1.0
_MANY = 20
_ENOUGH_BYTES = 16 * 2**20
_KEY = "the-key-of-one-server"

_DOCUMENT = {
    "default_generation_settings": {"id": 0, "n_ctx": 512, "params": {"seed": -1}},
    "total_slots": 3,
    "model_alias": "qwen",
    "chat_template": "{{ messages }}" * 1000,
}
_TOLD = ServerProps(slots_total=3, context_size=512)
_UNKNOWN = ServerProps()

_INCOMPLETE: dict[str, tuple[object, ServerProps]] = {
    "nothing": ({}, _UNKNOWN),
    "slots alone": ({"total_slots": 3}, ServerProps(slots_total=3)),
    "context alone": (
        {"default_generation_settings": {"n_ctx": 512}},
        ServerProps(context_size=512),
    ),
    "settings of another form": (
        {"total_slots": 3, "default_generation_settings": [512]},
        ServerProps(slots_total=3),
    ),
    "no slots": ({**_DOCUMENT, "total_slots": 0}, ServerProps(context_size=512)),
    "fewer than none": ({**_DOCUMENT, "total_slots": -1}, ServerProps(context_size=512)),
    "a text": ({**_DOCUMENT, "total_slots": "3"}, ServerProps(context_size=512)),
    "a half": ({**_DOCUMENT, "total_slots": 2.5}, ServerProps(context_size=512)),
    "a truth": ({**_DOCUMENT, "total_slots": True}, ServerProps(context_size=512)),
    "null": (
        {"total_slots": 3, "default_generation_settings": {"n_ctx": None}},
        ServerProps(slots_total=3),
    ),
}

_WHOLE = http_answer(_DOCUMENT)
_STRANGE: dict[str, Answer] = {
    "a list": http_answer([_DOCUMENT]),
    "null": http_answer(None),
    "no document": http_answer(b"<html>"),
    "no text": http_answer(b'{"total_slots": 3, "\xff\xfe": 1}'),
    "empty": http_answer(b""),
    "deep": http_answer(b'{"total_slots": 3, "a": ' + b"[" * 100_000),
    "long number": http_answer(b'{"total_slots": ' + b"9" * 10_000 + b"}"),
    "refused": http_answer(_DOCUMENT, status=401),
    "not found": http_answer(_DOCUMENT, status=404),
    "loading": http_answer(_DOCUMENT, status=503),
    "cut in its head": _WHOLE[:30],
    "cut in its body": _WHOLE[:-5],
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "closed": b"",
}


def _hang(peer: Peer) -> None:
    peer.wait_closed()


def _drip_head(peer: Peer) -> None:
    peer.send_slowly(b"HTTP/1.1 200 OK\r\nx-very-long: " + b"y" * 1000)


def _drip_body(peer: Peer) -> None:
    head, _, body = _WHOLE.partition(b"\r\n\r\n")
    peer.send(head + b"\r\n\r\n")
    peer.send_slowly(body)


def _never_end(peer: Peer) -> None:
    peer.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"total_slots": 3, "a": "')
    peer.send_for_ever(b"y" * 65_536)


def _answer_and_wait(peer: Peer) -> None:
    peer.send(_WHOLE)
    peer.wait_closed()


async def _pause() -> None:
    await anyio.sleep(_PAUSE_S)


class ServerClientContract(Contract):
    """What every client of servers keeps. The servers are this machine's, and scripted.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``open_client``::

        class TestMyClient(ServerClientContract):
            @pytest.fixture
            def open_client(self):
                return open_my_client
    """

    @pytest.fixture
    def open_client(self) -> OpenServerClient:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_client: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def client(
        self, open_client: OpenServerClient, context: AdapterContext
    ) -> AsyncIterator[ServerClient]:
        """Open the client."""
        async with open_client(context) as client:
            yield client

    async def test_opened_client_is_of_the_port(self, client: ServerClient) -> None:
        """The factory's context manager gives a ``ServerClient``."""
        assert isinstance(client, ServerClient), "bootstrap takes subclasses of ServerClient only"

    @pytest.mark.parametrize("ending", ["", "/"])
    async def test_props_are_what_the_server_tells(self, client: ServerClient, ending: str) -> None:
        """One question, with the key as a bearer token."""
        with serve_scripted(_WHOLE) as server:
            assert await client.props(server.base_url + ending, _KEY) == _TOLD

        (request,) = server.requests
        assert request.startswith("GET /props HTTP/1"), "the question must be GET /props"
        assert f"\r\nauthorization: bearer {_KEY}\r\n" in request.lower(), (
            "the key must be sent as a bearer token"
        )

    async def test_server_behind_a_unix_socket_is_asked(self, client: ServerClient) -> None:
        """At a path with a space in it; by a host that makes sense."""
        with TemporaryDirectory(prefix="gglib ") as folder:
            with serve_scripted(_WHOLE, f"{folder}/s.sock") as server:
                assert await client.props(server.base_url, _KEY) == _TOLD
            assert await client.props(server.base_url, _KEY) == _UNKNOWN

        request = server.requests[0].lower()
        assert request.startswith("get /props http/1"), "the question must be GET /props"
        assert "\r\nhost: localhost\r\n" in request, "behind a socket the host is localhost"

    async def test_no_key_is_sent_where_there_is_none(self, client: ServerClient) -> None:
        """Not an empty one either."""
        with serve_scripted(_WHOLE) as server:
            assert await client.props(server.base_url, None) == _TOLD

        assert "authorization" not in server.requests[0].lower(), "no key: no authorization"

    @pytest.mark.parametrize("case", _INCOMPLETE)
    async def test_what_is_not_told_is_unknown(self, client: ServerClient, case: str) -> None:
        """The rest counts."""
        document, expected = _INCOMPLETE[case]
        with serve_scripted(http_answer(document)) as server:
            found = await client.props(server.base_url, _KEY)

        assert found == expected, f"{case}: {json.dumps(document)[:100]} tells {expected}"

    @pytest.mark.parametrize("case", _STRANGE)
    async def test_strange_answer_tells_nothing(self, client: ServerClient, case: str) -> None:
        """And is no error."""
        with serve_scripted(_STRANGE[case]) as server:
            assert await client.props(server.base_url, _KEY) == _UNKNOWN, case

    async def test_where_nobody_listens_nothing_is_told(self, client: ServerClient) -> None:
        """A server may have ended."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        assert await client.props(f"http://127.0.0.1:{port}", _KEY) == _UNKNOWN

    async def test_slow_servers_are_given_up(self, client: ServerClient) -> None:
        """However they are slow: a byte now and then keeps nobody waiting either."""
        took_s: dict[str, float] = {}

        async def ask(name: str, base_url: str) -> None:
            began = anyio.current_time()
            assert await client.props(base_url, _KEY) == _UNKNOWN
            took_s[name] = anyio.current_time() - began

        answers = {"silent": _hang, "slow in its head": _drip_head, "slow in its body": _drip_body}
        with ExitStack() as servers, anyio.move_on_after(_LONGEST_S):
            async with anyio.create_task_group() as tasks:
                for name, answer in answers.items():
                    server = servers.enter_context(serve_scripted(answer))
                    tasks.start_soon(ask, name, server.base_url)

        assert set(took_s) == set(answers), f"props() must take 2 s at the most; ended: {took_s}"

    async def test_endless_answer_is_cut(self, client: ServerClient) -> None:
        """A few MiB, and no more."""
        with serve_scripted(_never_end) as server, anyio.fail_after(_PATIENCE_S):
            assert await client.props(server.base_url, _KEY) == _UNKNOWN
            while server.open_connections:
                await _pause()

        assert server.sent_bytes < _ENOUGH_BYTES, "an answer without end must not be read on"

    async def test_small_answer_does_not_become_a_large_one(self, client: ServerClient) -> None:
        """What unpacks to far more than was sent is none, or is what it says."""
        bomb = gzip.compress(b'{"total_slots": 3, "a": "' + bytes(2 * _ENOUGH_BYTES) + b'"}')
        with serve_scripted(http_answer(bomb, headers="content-encoding: gzip\r\n")) as server:
            assert await client.props(server.base_url, _KEY) == _UNKNOWN

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirect_is_not_followed(self, client: ServerClient, status: int) -> None:
        """The key is for one server."""
        with serve_scripted(_WHOLE) as other:
            place = f"location: {other.base_url}/props\r\n"
            with serve_scripted(http_answer({}, status=status, headers=place)) as server:
                assert await client.props(server.base_url, _KEY) == _UNKNOWN

        assert other.requests == [], "a redirect must not be followed: the key went elsewhere"

    async def test_proxy_of_the_user_is_not_asked(
        self,
        monkeypatch: pytest.MonkeyPatch,
        open_client: OpenServerClient,
        context: AdapterContext,
    ) -> None:
        """It does not know this machine's servers, and is not to know their keys."""
        with serve_scripted(_WHOLE) as server, serve_scripted(http_answer({})) as proxy:
            for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.base_url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            async with open_client(context) as client:
                found = await client.props(server.base_url, _KEY)

        assert proxy.requests == [], "no proxy must be asked"
        assert found == _TOLD

    async def test_no_connection_is_kept(self, client: ServerClient) -> None:
        """A server has few threads, and an idle connection holds one."""
        with serve_scripted(_answer_and_wait) as server:
            assert await client.props(server.base_url, _KEY) == _TOLD
            with anyio.move_on_after(_QUICK_S):
                while server.open_connections:
                    await _pause()

            assert server.open_connections == 0, "props() must close its connection"

    async def test_server_that_hangs_delays_no_other(self, client: ServerClient) -> None:
        """Nor does it hold up the event loop."""
        with serve_scripted(_hang) as dead, serve_scripted(_WHOLE) as server:
            # The first question may load what the client needs.
            assert await client.props(server.base_url, _KEY) == _TOLD
            async with anyio.create_task_group() as tasks:
                for _ in range(_MANY):
                    tasks.start_soon(client.props, dead.base_url, _KEY)
                with anyio.move_on_after(_QUICK_S):
                    while len(dead.requests) < _MANY:
                        await _pause()
                found = None
                with anyio.move_on_after(_QUICK_S):
                    found = await client.props(server.base_url, _KEY)
                tasks.cancel_scope.cancel()

        assert found == _TOLD, "others must not be held up by a server that hangs"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_question_does_no_harm(self, client: ServerClient, steps: int) -> None:
        """The next one is answered."""
        with serve_scripted(_WHOLE) as server:

            async def ask() -> None:
                await client.props(server.base_url, _KEY)

            await cancelled_after(steps, ask)
            with anyio.fail_after(_PATIENCE_S):
                assert await client.props(server.base_url, _KEY) == _TOLD
