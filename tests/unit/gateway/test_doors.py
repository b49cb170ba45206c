"""Who is let in: Host, Origin, keys, and the admin's token."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gglib.domain.access import EVERYTHING, USE, Grant, Scope
from gglib.errors import Forbidden, Unauthorized
from gglib.gateway.doors import Doors, host_name
from gglib.settings.keys import digest_of

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
    method: str = "GET",
    host: str | None = "localhost",
    origin: str | None = None,
    key: str | None = None,
) -> Grant:
    """Knock."""
    authorization = None if key is None else f"Bearer {key}"
    return at.admit(path, method=method, host=host, origin=origin, authorization=authorization)


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


# Scopes

SCOPED = {
    "user": Grant(frozenset({Scope.INFERENCE})),
    "limited": Grant(frozenset({Scope.INFERENCE}), models=("a", "b*")),
    "watcher": Grant(frozenset({Scope.READ})),
    "both": Grant(frozenset({Scope.INFERENCE, Scope.READ}), models=("a",)),
    "admin": Grant(frozenset({Scope.ADMIN})),
}


def scoped() -> Doors:
    """Return doors with a key of each kind, called like its scope."""
    return Doors(admin_token=TOKEN, keys={digest_of(key): SCOPED[key] for key in SCOPED})


@pytest.mark.parametrize(
    ("method", "path", "opened_by"),
    [
        ("POST", RELAYED, "user limited both admin"),
        ("POST", "/api/chat", "user limited both admin"),
        ("GET", "/upstream/m/v1/models", "user limited both admin"),
        ("GET", "/v1/files", "user limited both admin"),
        ("GET", "/v1/models", "user limited watcher both admin"),
        ("GET", "/v1/models/a", "user limited watcher both admin"),
        ("GET", "/api/tags", "user limited watcher both admin"),
        ("HEAD", "/", "user limited watcher both admin"),
        ("GET", "/running", "user watcher both admin"),
        ("GET", "/running/", "user watcher both admin"),
        ("GET", "/metrics", "user watcher both admin"),
        ("GET", "/admin/queue", "watcher both admin"),
        ("GET", "/admin/pool", "watcher both admin"),
        ("GET", "/admin/why/a", "watcher both admin"),
        ("GET", "/admin/events", "watcher both admin"),
        ("GET", "/admin/logs/a", "admin"),
        ("GET", "/admin/keys", "admin"),
        ("GET", "/admin", "admin"),
        ("GET", "/administration/queue", "admin"),
        ("POST", "/admin/queue", "admin"),
        ("POST", "/admin/models/a/load", "admin"),
        ("POST", "/admin/config/reload", "admin"),
    ],
)
def test_scopes_decide_what_a_key_opens(method: str, path: str, opened_by: str) -> None:
    """The others are told which scope they lack; the token opens everything."""
    at = scoped()
    for key, grant in SCOPED.items():
        if key in opened_by.split():
            assert admit(at, path, method=method, key=key) == grant
        else:
            with pytest.raises(Forbidden, match="this key lacks the scope"):
                admit(at, path, method=method, key=key)
    assert admit(at, path, method=method, key=TOKEN) == EVERYTHING
    with pytest.raises(Unauthorized):
        admit(at, path, method=method)


def test_change_of_a_server_is_an_admins() -> None:
    """Wherever it is asked for."""
    at = scoped()
    for key in ("user", "watcher", "both"):
        with pytest.raises(Forbidden, match="scope admin"):
            at.admit("/health", host=None, origin=None, authorization=f"Bearer {key}", changes=True)


@pytest.mark.parametrize("path", ["/admin/queue", "/admin/events", "/admin/models/m/load"])
def test_without_keys_the_admins_routes_are_the_tokens(path: str) -> None:
    """Those that only tell, too: whoever is on this machine is not everybody's friend."""
    with pytest.raises(Unauthorized):
        admit(doors(), path)
    assert admit(doors()) == USE


def test_keys_that_change_open_at_once_and_no_longer() -> None:
    """What was taken back opens nothing; the token stays."""
    at = doors(*KEYS)
    at.change(
        api_keys=(), keys={digest_of("new"): SCOPED["user"]}, own_names=(), allowed_origins=()
    )
    assert admit(at, key="new") == SCOPED["user"]
    for key in KEYS:
        with pytest.raises(Unauthorized):
            admit(at, key=key)
    assert admit(at, key=TOKEN) == EVERYTHING


@pytest.mark.parametrize(
    ("models", "name", "allowed"),
    [
        (None, "x", True),
        (("a", "b*"), "a", True),
        (("a", "b*"), "b", True),
        (("a", "b*"), "b/c", True),
        (("a", "b*"), "A", False),
        (("a", "b*"), "ab", False),
        (("*",), "anything", True),
    ],
)
def test_models_of_a_key_are_patterns(
    models: tuple[str, ...] | None, name: str, allowed: bool
) -> None:
    """Case counts; a star is any characters."""
    assert Grant(frozenset({Scope.INFERENCE}), models).allows(name) is allowed
