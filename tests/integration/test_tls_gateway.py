"""A gateway with a certificate: the official SDK, the command line, renewals, and wrong files."""

from __future__ import annotations

import datetime
import json
import shutil
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import openai
import pytest
from cryptography.hazmat.primitives import serialization
from support.certificates import Authority
from support.commands import Home, Served, stub_config
from support.real_gateway import open_real_gateway

from gglib.errors import ConfigurationError
from gglib.gateway.certificate import read_certificate
from gglib.settings import GatewaySettings

TLS = '[gateway]\ntls_certificate = "tls/server.pem"\ntls_key = "tls/server-key.pem"\n'
HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A stub, and a gateway that is to show a certificate."""
    home = Home.make(tmp_path)
    home.configure(stub_config("m", extra=TLS), "m")
    return home


@pytest.fixture
def authority(home: Home) -> Authority:
    """Who has issued it, for these names."""
    authority = Authority(home.path / "tls")
    authority.issue("localhost", "127.0.0.1", "models.example", "*.wild.example")
    return authority


@pytest.fixture
def served(home: Home, authority: Authority) -> Iterator[Served]:
    """Its gateway, in a process of its own."""
    del authority
    with home.serve() as served:
        yield served


def leaf(address: str) -> str:
    """Return the certificate that is shown there, in PEM."""
    url = httpx.URL(address)
    return ssl.get_server_certificate((url.host, url.port or 443))


def test_sdk_and_command_line_work_over_https(
    home: Home, authority: Authority, served: Served
) -> None:
    """The SDK trusts the authority, the command the very certificate; nobody trusts blindly."""
    assert served.address.startswith("https://127.0.0.1:")
    http = openai.DefaultHttpxClient(trust_env=False, verify=authority.client_context())
    with openai.OpenAI(
        base_url=f"{served.address}/v1", api_key="any", http_client=http, max_retries=0
    ) as client:
        answer = client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "I am m"
        stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        assert [piece.choices[0].delta.content for piece in stream] == ["0 ", "1 ", "2 "]
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{served.address}/health", trust_env=False)
    assert [row["model"] for row in home.json("ps")] == ["m"]
    assert home.run("stop", "m").returncode == 0
    # Somebody else who listens there gets no token.
    note = home.path / "gateway.json"
    said = json.loads(note.read_text())
    authority.issue("127.0.0.1", file="other")
    note.write_text(json.dumps({**said, "certificate": (home.path / "tls/other.pem").read_text()}))
    refused = home.run("ps")
    assert refused.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr and served.address in refused.stderr


def test_renewed_certificate_is_shown_after_a_reload_by_command_or_signal(
    home: Home, authority: Authority, served: Served
) -> None:
    """To those who come from then on; the command goes on to know its gateway."""
    file = home.path / "tls" / "server.pem"
    first = leaf(served.address)
    authority.issue("localhost", "127.0.0.1")
    assert leaf(served.address) == first
    assert home.json("config", "reload")["changed"] == ["gateway.tls_certificate"]
    second = leaf(served.address)
    assert second != first and second.strip() in file.read_text()
    assert home.json("config", "reload")["changed"] == []
    authority.issue("localhost", "127.0.0.1")
    served.process.send_signal(signal.SIGHUP)
    third = second
    while third == second:
        third = leaf(served.address)
    assert home.json("ps") == []


def test_renewed_certificate_is_shown_by_a_gateway_that_watches(
    home: Home, authority: Authority
) -> None:
    """Nobody tells it, as whatever renews certificates may not know of it."""
    settings = home.path / "gglib.toml"
    text = settings.read_text()
    settings.write_text(text.replace("[gateway]\n", "[gateway]\nwatch_config = true\n"))
    with home.serve() as served:
        first = leaf(served.address)
        authority.issue("localhost", "127.0.0.1")
        while leaf(served.address) == first:
            time.sleep(0.05)


def test_certificate_that_has_run_out_can_be_replaced(home: Home, authority: Authority) -> None:
    """Clients refuse it; whoever administers the gateway knows it by sight."""
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    authority.issue("127.0.0.1", ends_at=past)
    with home.serve() as served:
        with pytest.raises(httpx.ConnectError, match="expired"):
            httpx.get(f"{served.address}/health", verify=authority.client_context())
        authority.issue("127.0.0.1")
        assert home.json("config", "reload")["changed"] == ["gateway.tls_certificate"]
        answer = httpx.get(f"{served.address}/health", verify=authority.client_context())
        assert answer.status_code == 200


@pytest.mark.anyio
async def test_reload_with_a_wrong_certificate_keeps_the_old_and_a_stream_goes_on(
    home: Home, authority: Authority
) -> None:
    """The answer names the file; a right one is taken up under the stream's feet."""
    trust = authority.client_context()
    async with open_real_gateway(home, trust=trust) as gateway:
        body = {"model": "m", "messages": HELLO, "stream": True, "takes_s": 1.5}
        async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            shown = await anyio.to_thread.run_sync(leaf, gateway.address)
            (home.path / "tls" / "server-key.pem").write_text("no key")
            refused = await gateway.client.post("/admin/config/reload")
            message = refused.json()["error"]["message"]
            assert refused.status_code == 400
            assert "tls/server-key.pem" in message and "no private key" in message
            assert await anyio.to_thread.run_sync(leaf, gateway.address) == shown
            authority.issue("localhost", "127.0.0.1", "renamed.example")
            assert (await gateway.client.post("/admin/config/reload")).status_code == 200
            assert await anyio.to_thread.run_sync(leaf, gateway.address) != shown
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        # What it is certified for, it is called.
        for host, status in {
            "renamed.example": 200, "models.example": 403, "a.wild.example": 403,
        }.items():  # fmt: skip
            answer = await gateway.client.get("/v1/models", headers={"host": host})
            assert answer.status_code == status, host


@pytest.mark.anyio
async def test_tls_is_switched_on_at_the_next_start(home: Home, authority: Authority) -> None:
    """What listens already goes on to listen as it does."""
    del authority
    home.configure(stub_config("m"))
    async with open_real_gateway(home) as gateway:
        home.configure(stub_config("m", extra=TLS))
        told = (await gateway.client.post("/admin/config/reload")).json()
        assert told == {
            "changed": [],
            "at_next_start": ["gateway.tls_certificate", "gateway.tls_key"],
            "doubts": [],
        }
        assert (await gateway.client.get("/health")).status_code == 200


# What is wrong with the files


def settings(folder: Path, **more: Path) -> GatewaySettings:
    """Return settings that name the usual files, or others."""
    usual = {"tls_certificate": folder / "server.pem", "tls_key": folder / "server-key.pem"}
    return GatewaySettings(**{**usual, **more})


def encrypted(key: Path, password: bytes) -> None:
    """Have a password for a key."""
    opened = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        opened.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
    )


def test_certificate_and_key_may_be_one_file(tmp_path: Path) -> None:
    """As some tools write them."""
    certificate, key = Authority(tmp_path).issue("One.Example", "*.wild.example", "10.0.0.1")
    key.write_bytes(certificate.read_bytes() + key.read_bytes())
    found = read_certificate(GatewaySettings(tls_certificate=key))
    assert found is not None and found.names == {"one.example"}
    assert found.pem.strip() in certificate.read_text()
    assert read_certificate(GatewaySettings()) is None


def test_encrypted_key_is_opened_by_the_password_in_a_file(tmp_path: Path) -> None:
    """A line's end is no part of it; without the file, nobody is asked at the terminal."""
    _, key = Authority(tmp_path).issue("localhost")
    encrypted(key, b"open sesame")
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("open sesame\n")
    assert read_certificate(settings(tmp_path, tls_key_password_file=password)) is not None
    password.write_text("open barley\n")
    for more, said in (({"tls_key_password_file": password}, "does not open it"), ({}, "encrypt")):
        with pytest.raises(ConfigurationError, match=said) as caught:
            read_certificate(settings(tmp_path, **more))
        assert caught.value.source == str(key)
        assert "barley" not in str(caught.value)
    password.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read the password"):
        read_certificate(settings(tmp_path, tls_key_password_file=password))


@pytest.mark.parametrize(
    ("file", "do", "said"),
    [
        ("server.pem", lambda path: path.unlink(), "tls_certificate: No such file"),
        ("server-key.pem", lambda path: path.unlink(), "tls_key: No such file"),
        ("server.pem", lambda path: path.write_text("hello"), "no certificate in PEM"),
        ("server-key.pem", lambda path: path.write_text("hello"), "no private key in PEM"),
        ("server-key.pem", lambda path: path.write_bytes(b"\xff\x00" * 99), "no private key"),
        ("server.pem", lambda path: path.write_bytes(b"x" * (1 << 21)), "not a PEM file"),
        (
            "server-key.pem",
            lambda path: shutil.copyfile(path.with_name("other-key.pem"), path),
            "is not the key of the certificate",
        ),
        ("server-key.pem", lambda path: path.chmod(0o644), "others can read the private key"),
        ("server.pem", lambda path: (path.unlink(), path.mkdir()), "not a PEM file"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, file: str, do: object, said: str) -> None:
    """With what is wrong, and no trace of OpenSSL's own words."""
    authority = Authority(tmp_path)
    authority.issue("localhost", file="other")
    authority.issue("localhost")
    do(tmp_path / file)  # type: ignore[operator]
    with pytest.raises(ConfigurationError) as caught:
        read_certificate(settings(tmp_path))
    assert caught.value.source == str(tmp_path / file)
    assert said in caught.value.message
    assert "_ssl" not in caught.value.message


def test_serve_ends_at_once_with_a_wrong_certificate(home: Home, authority: Authority) -> None:
    """One line, with the file and the remedy."""
    del authority
    (home.path / "tls" / "server-key.pem").chmod(0o604)
    done = home.run("serve", "--port", "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "tls/server-key.pem" in line and "chmod go-rwx" in line


def test_key_without_a_certificate_is_refused(home: Home) -> None:
    """It would be of no use."""
    home.configure('[gateway]\ntls_key = "tls/server-key.pem"\n')
    done = home.run("config", "check")
    assert done.returncode == 2
    assert "gglib.toml:2" in done.stderr and "tls_certificate" in done.stderr
