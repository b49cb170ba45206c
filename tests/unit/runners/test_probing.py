"""Health checks over every way to a server, and why one fails."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from support.certificates import Authority
from support.upstream import ScriptedUpstream

from gglib.bootstrap import SystemClock
from gglib_adapters.probing import HttpProbe

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"]),
]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Handshakes that fail are wanted here."""
    caplog.set_level("CRITICAL", logger="anyio.streams.tls")


@asynccontextmanager
async def running(upstream: ScriptedUpstream) -> AsyncIterator[HttpProbe]:
    """Run a server for the block, and return what asks it."""
    upstream.unasked, upstream.events = "answer", [b"{}"]
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: upstream.run(task_status=task_status))
        async with aclosing(HttpProbe(clock=SystemClock(), timeout_s=5)) as probe:
            yield probe
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["s.sock", "100% é.sock"])
async def test_server_behind_a_unix_socket_is_healthy(tmp_path: Path, path: str) -> None:
    """Nobody behind it is not."""
    upstream = ScriptedUpstream(socket_path=tmp_path / path)
    async with running(upstream) as probe:
        assert (await probe.probe(upstream.base_url)).healthy
        missing = await probe.probe(f"{upstream.base_url}2")
    assert (missing.healthy, missing.message) == (False, "not listening yet")


async def test_server_with_a_trusted_certificate_is_healthy(tmp_path: Path) -> None:
    """Trusted by the file that is named, whatever it was called before."""
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    ca_file = tmp_path / "ca.pem"
    upstream = ScriptedUpstream(certificate=second.server_context("localhost"))
    async with running(upstream) as probe:
        shutil.copy(first.ca_file, ca_file)
        before = await probe.probe(upstream.base_url, ca_file=str(ca_file))
        ca_file.unlink()
        shutil.copy(second.ca_file, ca_file)
        after = await probe.probe(upstream.base_url, ca_file=str(ca_file))
    assert (before.is_untrusted, after.healthy) == (True, True)


async def test_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    """With the server and the reason: nobody has to wait for it to change."""
    authority = Authority(tmp_path / "authority")
    upstream = ScriptedUpstream(certificate=authority.server_context("other.example"))
    async with running(upstream) as probe:
        stranger = await probe.probe(upstream.base_url)
        misnamed = await probe.probe(upstream.base_url, ca_file=str(authority.ca_file))
        unread = await probe.probe(upstream.base_url, ca_file="/nowhere/ca.pem")
    for health, reason in (
        (stranger, "unable to get local issuer certificate"),
        (misnamed, "certificate is not valid for 'localhost'"),
        (unread, "/nowhere/ca.pem cannot be read"),
    ):
        assert health.is_untrusted and not health.healthy
        assert health.message is not None
        assert reason in health.message and upstream.base_url in health.message
    assert upstream.received == []


async def test_server_without_tls_is_waited_for(tmp_path: Path) -> None:
    """It may be another's port still; the message gives it away."""

    class NoTls(ScriptedUpstream):
        async def _connection(self, stream: ByteStream) -> None:
            await stream.send(b"HTTP/1.1 400 X\r\n\r\n")
            await stream.aclose()

    upstream = NoTls()
    async with running(upstream) as probe:
        health = await probe.probe(f"https://localhost:{upstream.port}")
    assert health.message is not None and "or not with TLS" in health.message
    assert not health.is_untrusted


async def test_what_is_no_base_url_is_unhealthy() -> None:
    """A probe raises nothing."""
    async with aclosing(HttpProbe(clock=SystemClock(), timeout_s=5)) as probe:
        health = await probe.probe("localhost:8080")
    assert health.message is not None and "expected http://HOST:PORT" in health.message
