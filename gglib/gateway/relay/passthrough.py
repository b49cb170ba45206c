"""Any request to any path of a model's server: ``/upstream/MODEL/PATH``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gglib.gateway.relay.body import RequestedModel
from gglib.gateway.relay.heads import RequestHead
from gglib.gateway.relay.relayed import RelayTurn
from gglib.gateway.relay.routes import UPSTREAM_ROUTE

if TYPE_CHECKING:
    from gglib.gateway.relay.connection import GatewayProtocol

__all__ = ["PassThroughTurn"]

#: Methods that usually come without a body, which then needs no length.
_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})


class PassThroughTurn(RelayTurn):
    """A request whose model is in its path. Its body is none of our business."""

    route = UPSTREAM_ROUTE.encode()

    def __init__(
        self,
        connection: GatewayProtocol,
        method: bytes,
        model: str,
        target: bytes,
        head: RequestHead,
        keep_alive: bool,
    ) -> None:
        super().__init__(connection, target, head, keep_alive)
        self._method = method
        self._model = model
        self._head_only = method == b"HEAD"
        if method in _WITHOUT_BODY:
            self._head_end = b"\r\n\r\n"

    def _read_model(self) -> None:
        self._requested = RequestedModel(self._model)

    def _body_for(self, model: str) -> bytes:
        del model
        # An engine that does not expect a body would read the next request from it.
        self._has_odd_body = bool(self._body) and self._method in _WITHOUT_BODY
        return self._body
