"""A command engine that speaks HTTPS, from its settings to an answer."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from support.certificates import Authority
from support.commands import Home, stub_config
from support.real_gateway import open_real_gateway

from gglib.errors import ConfigurationError
from gglib.testing.contexts import make_context
from gglib_adapters.engines.command import open_command_engine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def configure(home: Home, authority: Authority, *lines: str) -> None:
    """Have models served by the stub over HTTPS, as localhost."""
    certificate, key = authority.issue("localhost")
    both = home.path.parent / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    text = stub_config("m", certificate=str(both))
    section = "\n".join(["[engines.stub]", 'base_url = "https://localhost:{port}"', *lines])
    home.configure(text.replace("[engines.stub]", section), "m")


async def test_engine_of_a_private_authority_answers(tmp_path: Path) -> None:
    """Readiness, what it is asked of itself, and requests: all trust its file."""
    home, authority = Home.make(tmp_path), Authority(tmp_path / "authority")
    configure(home, authority, f'ca_file = "{authority.ca_file}"')
    async with open_real_gateway(home) as gateway:
        await gateway.ask("m")
        await gateway.ask("m", stream=True)


async def test_start_behind_a_strange_certificate_fails_at_once(tmp_path: Path) -> None:
    """Long before the start's time is up, with the reason and the remedy."""
    home, authority = Home.make(tmp_path), Authority(tmp_path / "authority")
    configure(home, authority)
    async with open_real_gateway(home) as gateway:
        with anyio.fail_after(20):
            answer = await gateway.chat("m")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "start_failed")
    for part in ("https://localhost:", "unable to get local issuer certificate", "ca_file"):
        assert part in error["message"]


@pytest.mark.parametrize(
    "base_url",
    [
        "https://localhost",
        "https://localhost:8080",
        "http+unix:///run/{port}.sock",
        "https://localhost:{port}/{port}",
        "https://localhost:{model_name}",
        "https://local host:{port}",
        "https://localhost:1{port}",
        "localhost:{port}",
    ],
)
async def test_base_url_without_the_port_is_refused(tmp_path: Path, base_url: str) -> None:
    """Each server has its own; the error shows what is meant."""
    context = make_context(tmp_path, settings={"command": ["x"], "base_url": base_url})
    with pytest.raises(ConfigurationError, match=r"such as 'https://localhost:\{port\}'"):
        async with open_command_engine(context):
            pass
