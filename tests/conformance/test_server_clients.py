"""The clients of servers keep the port's promises."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from support.certificates import Authority
from support.upstream import Received, ScriptedUpstream

from gglib.ports.server_client import ServerClient, ServerProps
from gglib.testing import ServerClientContract
from gglib.testing.contracts.server_client import OpenServerClient
from gglib_adapters.server_client import open_http_server_client


class TestHttpServerClient(ServerClientContract):
    """Over sockets."""

    @pytest.fixture
    def open_client(self) -> OpenServerClient:
        return open_http_server_client

    async def test_key_goes_to_nobody_without_a_trusted_certificate(
        self, client: ServerClient, tmp_path: Path
    ) -> None:
        """One who is trusted tells what there is to tell."""

        class Telling(ScriptedUpstream):
            async def _do_echo(self, stream: ByteStream, request: Received) -> bool:
                return await self._answer(stream, b'{"total_slots": 3}')

        authority = Authority(tmp_path / "authority")
        upstream = Telling(certificate=authority.server_context("localhost"))
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda *, task_status: upstream.run(task_status=task_status))
            assert await client.props(upstream.base_url, "key") == ServerProps()
            assert upstream.received == []
            found = await client.props(upstream.base_url, "key", ca_file=str(authority.ca_file))
            tasks.cancel_scope.cancel()
        assert found == ServerProps(slots_total=3)
        assert upstream.received[0].header("authorization") == "Bearer key"
