"""The clients of servers keep the port's promises."""

from __future__ import annotations

import pytest

from gglib.testing import ServerClientContract
from gglib.testing.contracts.server_client import OpenServerClient
from gglib_adapters.server_client import open_http_server_client


class TestHttpServerClient(ServerClientContract):
    """Over sockets."""

    @pytest.fixture
    def open_client(self) -> OpenServerClient:
        return open_http_server_client
