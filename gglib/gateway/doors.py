"""The one door: every request passes ``admit``, relayed or not."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gglib.domain.access import EVERYTHING, USE, Grant, Scope
from gglib.errors import Forbidden, Unauthorized
from gglib.settings.keys import digest_of

__all__ = ["Doors", "sufficient_scopes"]

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(host: str) -> str:
    """Return the name of a Host header without its port and brackets, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_KEYLESS = frozenset({"/health", "/ready"})
#: GETs below ``/admin`` that tell what goes on, and nothing of what models were asked or have
#: printed: engines write prompts into their output.
_TELLING = frozenset({"events", "pool", "queue", "why"})
_MODEL_LISTS = frozenset(
    {
        *("/", "/docs", "/openapi.json", "/v1/models"),
        *("/api/ps", "/api/show", "/api/tags", "/api/version"),
    }
)
#: What tells of every model alike.
_OVERVIEWS = frozenset({"/running", "/metrics"})
_READING = frozenset({"GET", "HEAD"})


def sufficient_scopes(method: str, path: str) -> tuple[Scope, ...]:
    """Return the scopes of which each opens a route, beside admin's.

    ``path`` is decoded, without two slashes in a row, or one at its end.
    """
    first, _, rest = path.removeprefix("/").partition("/")
    if first.startswith("admin"):
        tells = method in _READING and first == "admin" and rest.partition("/")[0] in _TELLING
        return (Scope.READ,) if tells else ()
    if path in _OVERVIEWS or path in _MODEL_LISTS or path.startswith("/v1/models/"):
        return (Scope.INFERENCE, Scope.READ)
    return (Scope.INFERENCE,)


class Doors:
    """Host and Origin (against DNS rebinding and CSRF), keys, and the local admin token.

    A request with no ``Origin`` comes from a program. One with an ``Origin`` comes from a web
    page, which must be ours or a configured one. A ``Host`` that is a name must be one of ours:
    a page of another name that resolves to this machine is refused. Addresses can't be rebound.
    """

    __slots__ = ("_allowed_origins", "_grants", "_own_names", "_token_digest")

    def __init__(
        self,
        *,
        admin_token: str,
        api_keys: Iterable[str] = (),
        keys: Mapping[bytes, Grant] = MappingProxyType({}),
        own_names: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self._token_digest = digest_of(admin_token)
        self.change(
            api_keys=api_keys, keys=keys, own_names=own_names, allowed_origins=allowed_origins
        )

    def change(
        self,
        *,
        api_keys: Iterable[str],
        keys: Mapping[bytes, Grant],
        own_names: Iterable[str],
        allowed_origins: Iterable[str],
    ) -> None:
        """Admit by these from now on. Whoever remembers who was admitted must ask again.

        ``keys``: what each opens, by its SHA-256; those of ``api_keys`` open what anybody may
        do where no key is asked for: use.
        """
        self._grants = {**{digest_of(key): USE for key in api_keys}, **keys}
        self._own_names = _LOCAL_NAMES | {name.lower() for name in own_names}
        self._allowed_origins = frozenset(allowed_origins)

    @property
    def needs_key(self) -> bool:
        """Whether there are keys, so that requests need one."""
        return bool(self._grants)

    def admit(
        self,
        path: str,
        *,
        host: str | None,
        origin: str | None,
        authorization: str | None,
        method: str = "GET",
        fetch_site: str | None = None,
        changes: bool = False,
    ) -> Grant:
        """Return what the request may do, if it may enter.

        ``changes``: it may change a server, which is an admin's to do. ``fetch_site``: what a
        browser says of the page that sent it.

        Raises:
            Forbidden: its Host or Origin is not ours, or its key lacks the scope.
            Unauthorized: it has no valid key and needs one.
        """
        self._check_host(host)
        self._check_origin(origin)
        if fetch_site == "cross-site" and origin is None and path.startswith("/upstream/"):
            # An image or a frame of a strange page names no origin, and would load a model.
            raise Forbidden("pages of other sites may not reach a model's server")
        # The router takes several slashes for one, and one at the end for none.
        path = "/" + path.strip("/")
        scopes = () if changes else sufficient_scopes(method, path)
        is_open = not self._grants and bool(scopes) and not path.startswith("/admin")
        if is_open or (path in _KEYLESS and not changes):
            return USE
        grant = self._grant(authorization)
        if path in _OVERVIEWS and grant.models is not None:
            scopes = (Scope.READ,)
        if not grant.has(*scopes):
            wanted = " or ".join(scopes) or Scope.ADMIN
            raise Forbidden(
                f"this key lacks the scope {wanted}; use one that has it, "
                "or the gateway's local token"
            )
        return grant

    def _grant(self, authorization: str | None) -> Grant:
        """Return what a key opens.

        Raises:
            Unauthorized: there is none, or it is not known.
        """
        if authorization is None:
            raise Unauthorized("no key was sent")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("the authorization scheme is not Bearer")
        presented = digest_of(key.strip())
        # Every key is compared, so that time tells nothing of which one came close.
        found = EVERYTHING if hmac.compare_digest(presented, self._token_digest) else None
        for digest, grant in self._grants.items():
            if hmac.compare_digest(presented, digest):
                found = found or grant
        if found is None:
            raise Unauthorized("the key is not valid")
        return found

    def welcomes(self, *, host: str | None, origin: str | None) -> bool:
        """Whether a page of ``origin`` may use this gateway, given the right key."""
        try:
            self._check_host(host)
            self._check_origin(origin)
        except Forbidden:
            return False
        return True

    def _check_host(self, host: str | None) -> None:
        if host is None:
            return
        name = host_name(host)
        if name not in self._own_names and not _is_address(name):
            raise Forbidden(
                f"the Host '{name[:200]}' is not one of this gateway's; "
                "use its address, or add the name to [gateway] allowed_hosts"
            )

    def _check_origin(self, origin: str | None) -> None:
        if origin is None or origin in self._allowed_origins:
            return
        scheme, separator, rest = origin.partition("://")
        if separator and scheme in {"http", "https"} and host_name(rest) in self._own_names:
            return
        raise Forbidden(
            f"pages from '{origin[:200]}' may not use this gateway; "
            "add the origin to [gateway] allowed_origins"
        )
