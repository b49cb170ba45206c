"""Base URLs: three forms, read in one way, and nothing that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import base_urls

from gglib.domain.server_address import ServerAddress, certificate_refusal
from gglib.errors import InvalidValue, ServerUntrusted


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", ServerAddress(host="127.0.0.1", port=8080)),
        ("HTTP://127.0.0.1:8080/", ServerAddress(host="127.0.0.1", port=8080)),
        ("http://[::1]:9", ServerAddress(host="::1", port=9)),
        ("http://gpu_box", ServerAddress(host="gpu_box", port=80)),
        ("https://gpu.example", ServerAddress(host="gpu.example", port=443, is_tls=True)),
        (
            "https://gpu.example:8443/models/one/",
            ServerAddress(host="gpu.example", port=8443, is_tls=True, path_prefix="/models/one"),
        ),
        ("http+unix:///run/user/1/e.sock", ServerAddress(socket_path="/run/user/1/e.sock")),
        ("http+unix:///a%20b/%C3%A9%2f%25", ServerAddress(socket_path="/a b/é/%")),
        ("http+unix://%2Frun%2Fe.sock", ServerAddress(socket_path="/run/e.sock")),
    ],
)
def test_base_url_says_where_to_connect(url: str, expected: ServerAddress) -> None:
    """Without a port it is the scheme's; a slash at the end says nothing."""
    assert ServerAddress.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://localhost:21",
        "http://",
        "http://:80",
        "http://a b:80",
        "http://host:0",
        "http://host:65536",
        "http://host:٣",
        "http://host:80x",
        "http://[::1",
        "http://[1.2.3.4]:80",
        "http://::1:80",
        "http://host:80?query",
        "http://host:80/a?query",
        "http://host:80/a#fragment",
        "http://host:80/a b",
        "http://host:80/a\r\nx-evil: 1",
        "http://host:80/%zz",
        "http://ho\nst:80",
        "http://bücher.example",
        "http://user@host:80",
        "http+unix://",
        "http+unix://host/run/e.sock",
        "http+unix:///run/",
        "http+unix:///run/e.sock?query",
        "http+unix:///run/%00.sock",
        "unix:///run/e.sock",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    """With what would be one."""
    with pytest.raises(InvalidValue, match="http\\+unix:///PATH") as caught:
        ServerAddress.parse(url)
    assert caught.value.field == "base_url"


def test_password_in_a_url_is_not_repeated() -> None:
    """There is no place for one, and errors are logged."""
    with pytest.raises(InvalidValue) as caught:
        ServerAddress.parse("https://ada:se/cr@et@host:80")
    assert "se/cr@et" not in str(caught.value)


@given(base_urls)
def test_written_out_it_is_the_same_place(url: str) -> None:
    """Whatever is in the path of a socket."""
    address = ServerAddress.parse(url)
    assert ServerAddress.parse(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_is_refused(url: str) -> None:
    """And what it puts into a request's head is one line of ASCII."""
    for text in (url, f"http://{url}", f"https://host/{url}", f"http+unix:///{url}"):
        try:
            address = ServerAddress.parse(text)
        except InvalidValue:
            continue
        head = address.host_header + address.path_prefix
        assert head.isascii() and head.isprintable() and " " not in head
        assert 0 <= address.port <= 65_535


@pytest.mark.parametrize(
    ("url", "host", "base"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:80", "[::1]", "http://[::1]"),
        ("https://gpu.example:443/v", "gpu.example", "https://gpu.example/v"),
        ("https://gpu.example:80", "gpu.example:80", "https://gpu.example:80"),
        ("http+unix:///run/e.sock", "localhost", "http://localhost"),
    ],
)
def test_requests_name_the_host_that_is_meant(url: str, host: str, base: str) -> None:
    """Its port only where it is not the scheme's; behind a socket it is this machine."""
    address = ServerAddress.parse(url)
    assert (address.host_header, address.http_url) == (host, base)


def test_refused_certificate_is_found_below_a_librarys_errors() -> None:
    """Where it is not what went wrong, nothing is found."""

    class Refused(OSError):
        verify_message = "it has expired"

    def fail() -> None:
        try:
            raise Refused
        except Refused as error:
            raise ConnectionError from error

    with pytest.raises(ConnectionError) as caught:
        fail()
    assert certificate_refusal(caught.value) == "it has expired"
    assert certificate_refusal(OSError("no route")) is None


def test_refusal_names_the_server_and_the_remedy() -> None:
    """Somebody reads it who has a certificate of his own."""
    refusal = str(ServerUntrusted("https://gpu.example:8443", "self-signed certificate"))
    for part in ("https://gpu.example:8443", "self-signed certificate", "ca_file"):
        assert part in refusal
