"""The socket that the gateway listens on."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.errors import ConfigurationError, PortInUse
from gglib.gateway.listener import bind, is_loopback, url_of


def has_ipv6() -> bool:
    """Return whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


HAS_IPV6 = has_ipv6()


def nobody(port: int) -> str | None:
    """Know nobody."""
    return None


def test_port_zero_is_one_that_the_system_chose() -> None:
    """It accepts connections at the address that is told."""
    with bind("127.0.0.1", 0, holder=nobody) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, "127.0.0.1") == f"http://127.0.0.1:{port}"
        assert not listener.getblocking()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_taken_port_is_told_with_its_holder() -> None:
    """As far as somebody knows him."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            bind("127.0.0.1", port, holder=lambda asked: f"holder of {asked}")
        assert (caught.value.port, caught.value.holder) == (port, f"holder of {port}")


def test_port_is_free_for_the_next_at_once() -> None:
    """A restart does not wait for old connections to be forgotten."""
    with bind("127.0.0.1", 0, holder=nobody) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            first.setblocking(True)
            first.accept()[0].close()
    with bind("127.0.0.1", port, holder=nobody) as second:
        assert second.getsockname()[1] == port


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7", "bad host"])
def test_address_that_is_not_here_is_a_configuration_error(host: str) -> None:
    """Whether the name or the machine lacks it, it is named."""
    with pytest.raises(ConfigurationError, match=host):
        bind(host, 0, holder=nobody)


@given(st.ip_addresses())
def test_address_is_loopback_as_the_standard_says(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """What is decided by it is whether a key is needed."""
    assert is_loopback(str(address)) == address.is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("localhost.example", False),
    ],
)
def test_host_is_loopback_only_if_it_surely_is(host: str, expected: bool) -> None:
    """A name may lead anywhere."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_address_of_a_gateway_for_everybody_is_the_local_one(host: str) -> None:
    """What is told can be connected to."""
    with bind("0.0.0.0", 0, holder=nobody) as listener:
        assert url_of(listener, host) == f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no ::1")
def test_ipv6_address_is_told_in_brackets() -> None:
    """As a URL writes it, and it answers there."""
    with bind("::1", 0, holder=nobody) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, "::1") == f"http://[::1]:{port}"
        with socket.create_connection(("::1", port), timeout=5):
            pass
