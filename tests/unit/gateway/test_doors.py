"""Who is let in: Host, Origin, keys, and the admin's token."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gglib.errors import Forbidden, Unauthorized
from gglib.gateway.doors import Doors, host_name

TOKEN = "the-admin-token"
KEYS = ("key-one", "key-two")
RELAYED = "/v1/chat/completions"

domains = st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9-]{0,10}){0,3}", fullmatch=True)
addresses = st.ip_addresses()
ports = st.none() | st.integers(0, 65_535)
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def doors(*api_keys: str) -> Doors:
    """Return doors with those keys, a name of their own and a page that may enter."""
    return Doors(
        admin_token=TOKEN,
        api_keys=api_keys,
        own_names=("Models.Example",),
        allowed_origins=("https://page.example",),
    )


def admit(
    at: Doors,
    path: str = RELAYED,
    *,
    host: str | None = "localhost",
    origin: str | None = None,
    key: str | None = None,
) -> None:
    """Knock."""
    authorization = None if key is None else f"Bearer {key}"
    at.admit(path, host=host, origin=origin, authorization=authorization)


def with_port(name: str, port: int | None) -> str:
    """Return a Host header."""
    return name if port is None else f"{name}:{port}"


def bracketed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return an address as a Host header writes it."""
    return f"[{address}]" if address.version == 6 else str(address)


@given(domains, ports)
def test_host_that_is_another_name_is_refused(name: str, port: int | None) -> None:
    """A page of another name that resolves to this machine does not get in."""
    assume(name not in {"localhost", "models.example"})
    with pytest.raises(Forbidden, match="allowed_hosts"):
        admit(doors(), host=with_port(name, port))


@given(addresses, ports)
def test_host_that_is_an_address_is_let_in(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None
) -> None:
    """Addresses cannot be rebound; with or without a port."""
    host = with_port(bracketed(address), port)
    assert host_name(host) == str(address)
    admit(doors(), host=host)


@pytest.mark.parametrize(
    "host", [None, "localhost", "LOCALHOST:80", "models.example", "Models.Example:443", "[::1]:1"]
)
def test_host_of_the_gateway_is_let_in(host: str | None) -> None:
    """In whatever case; old clients send none."""
    admit(doors(), host=host)


@given(st.sampled_from(["http", "https"]), domains, ports)
def test_page_of_another_origin_is_refused(scheme: str, name: str, port: int | None) -> None:
    """A page may not use its visitor's models."""
    assume(name not in {"localhost", "models.example"})
    assume((scheme, name, port) != ("https", "page.example", None))
    with pytest.raises(Forbidden, match="allowed_origins"):
        admit(doors(), origin=f"{scheme}://{with_port(name, port)}")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "localhost",
        "file://localhost",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://evil.example:80",
        "http://localhost@evil.example",
        "https://page.example.evil.example",
        "http://page.example",
        "HTTP://",
        "",
    ],
)
def test_origin_that_only_looks_like_ours_is_refused(origin: str) -> None:
    """Neither a part of it nor another scheme counts."""
    with pytest.raises(Forbidden):
        admit(doors(), origin=origin)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://localhost:8080",
        "http://[::1]:8080",
        "http://127.0.0.1",
        "https://page.example",
    ],
)
def test_page_of_ours_is_let_in(origin: str | None) -> None:
    """Programs send none; the dashboard and configured pages send theirs."""
    admit(doors(), origin=origin)


@given(printable)
def test_no_other_key_opens(key: str) -> None:
    """Only the very keys, and the token, do."""
    assume(key not in (*KEYS, TOKEN))
    with pytest.raises(Unauthorized) as caught:
        admit(doors(*KEYS), key=key)
    assert key not in caught.value.reason or key in "the key is not valid"


@pytest.mark.parametrize("key", [*KEYS, TOKEN])
def test_every_key_opens_the_inference_routes(key: str) -> None:
    """The first as well as the last, and the administrator's."""
    admit(doors(*KEYS), key=key)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_scheme_is_read_in_any_case(scheme: str) -> None:
    """As RFC 9110 has it; spaces around the key do no harm."""
    at = doors(*KEYS)
    at.admit(RELAYED, host=None, origin=None, authorization=f"{scheme}  {KEYS[0]} ")


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", KEYS[0], "Basic a2V5"])
def test_authorization_without_a_bearer_key_is_refused(authorization: str | None) -> None:
    """Each with its own reason, and what to send."""
    with pytest.raises(Unauthorized, match="Authorization: Bearer KEY"):
        doors(*KEYS).admit(RELAYED, host=None, origin=None, authorization=authorization)


def test_without_keys_everybody_on_this_machine_may_infer() -> None:
    """A key that is sent all the same is not looked at."""
    admit(doors())
    admit(doors(), key="whatever")


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probe_needs_no_key(path: str) -> None:
    """A load balancer has none."""
    admit(doors(*KEYS), path)


@given(st.lists(printable, max_size=3), st.none() | printable, st.integers(1, 3), printable)
def test_admin_route_opens_to_the_token_alone(
    keys: list[str], key: str | None, slashes: int, rest: str
) -> None:
    """Whatever keys there are, and however many slashes: an API key has no admin right."""
    assume(TOKEN not in keys and key != TOKEN)
    at, path = doors(*keys), f"{'/' * slashes}admin/{rest}"
    admit(at, path, key=TOKEN)
    with pytest.raises(Forbidden if key in keys else Unauthorized):
        admit(at, path, key=key)


def test_message_repeats_no_more_than_a_name_of_a_header() -> None:
    """A megabyte in a header does not reach the log."""
    for header in ({"host": "x" * 10_000}, {"origin": "http://" + "x" * 10_000}):
        with pytest.raises(Forbidden) as caught:
            admit(doors(), **header)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 400
