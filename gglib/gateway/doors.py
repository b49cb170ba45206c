"""The one door: every request passes ``admit``, relayed or not."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable

from gglib.errors import Forbidden, Unauthorized

__all__ = ["Doors"]

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


class Doors:
    """Host and Origin (against DNS rebinding and CSRF), keys, and the local admin token.

    A request with no ``Origin`` comes from a program. One with an ``Origin`` comes from a web
    page, which must be ours or a configured one. A ``Host`` that is a name must be one of ours:
    a page of another name that resolves to this machine is refused. Addresses can't be rebound.
    """

    __slots__ = ("_allowed_origins", "_api_keys", "_own_names", "admin_token")

    def __init__(
        self,
        *,
        admin_token: str,
        api_keys: Iterable[str] = (),
        own_names: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
    ) -> None:
        self.admin_token = admin_token
        self.change(api_keys=api_keys, own_names=own_names, allowed_origins=allowed_origins)

    def change(
        self,
        *,
        api_keys: Iterable[str],
        own_names: Iterable[str],
        allowed_origins: Iterable[str],
    ) -> None:
        """Admit by these from now on. Whoever remembers who was admitted must ask again."""
        self._api_keys = tuple(key.encode() for key in api_keys)
        self._own_names = _LOCAL_NAMES | {name.lower() for name in own_names}
        self._allowed_origins = frozenset(allowed_origins)

    @property
    def needs_key(self) -> bool:
        """Whether there are keys, so that requests need one."""
        return bool(self._api_keys)

    def admit(
        self,
        path: str,
        *,
        host: str | None,
        origin: str | None,
        authorization: str | None,
        fetch_site: str | None = None,
        changes: bool = False,
    ) -> None:
        """Return if the request may enter.

        ``changes``: it may change a server, which is an admin's to do. ``fetch_site``: what a
        browser says of the page that sent it.

        Raises:
            Forbidden: its Host or Origin is not ours, or its key lacks the right.
            Unauthorized: it has no valid key and needs one.
        """
        self._check_host(host)
        self._check_origin(origin)
        # The router takes several slashes for one.
        needs_admin = changes or path.lstrip("/").startswith("admin")
        if fetch_site == "cross-site" and origin is None and path.startswith("/upstream/"):
            # An image or a frame of a strange page names no origin, and would load a model.
            raise Forbidden("pages of other sites may not reach a model's server")
        if not needs_admin and (not self._api_keys or path in {"/health", "/ready"}):
            return
        if authorization is None:
            raise Unauthorized("no key was sent")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("the authorization scheme is not Bearer")
        presented = key.strip().encode()
        if hmac.compare_digest(presented, self.admin_token.encode()):
            return
        # Every key is compared, so that time tells nothing of which one came close.
        known = False
        for api_key in self._api_keys:
            known |= hmac.compare_digest(presented, api_key)
        if not known:
            raise Unauthorized("the key is not valid")
        if needs_admin:
            raise Forbidden("this key has no admin right; use the gateway's local token")

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
