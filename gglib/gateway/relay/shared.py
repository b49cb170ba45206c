"""What every connection of a gateway shares."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import count

import attrs

from gglib.gateway.doors import Doors
from gglib.gateway.meter import Meter
from gglib.gateway.relay.body_rules import RuleBook
from gglib.gateway.relay.limits import Limits
from gglib.gateway.relay.routes import RELAYED_ROUTES
from gglib.gateway.relay.turn_kinds import TurnKinds
from gglib.gateway.relay.upstream import UpstreamPools
from gglib.services.models import ModelService
from gglib.services.routing.router import Router

__all__ = ["RelayShared", "RequestIds"]


class RequestIds:
    """Makes request ids: unique among gateways by a random part, cheap by a counter."""

    __slots__ = ("_format", "_numbers")

    def __init__(self) -> None:
        # One formatting for each id: the prefix is part of the format.
        self._format = b"req_" + os.urandom(6).hex().encode() + b"%08x"
        self._numbers = count(1)

    def make(self) -> bytes:
        """Return a new id."""
        return self._format % next(self._numbers)


@attrs.define(kw_only=True, eq=False)
class RelayShared:
    """The parts that connections work with; one instance per gateway.

    Who sets something else here tells every connection: see ``GatewayProtocol.renew``.
    """

    router: Router
    models: ModelService
    doors: Doors
    limits: Limits
    session_header: bytes = b""
    """In lower case: what names the session of a request; empty = nothing does."""
    loading_state: bool = False
    """Whether chats that wait are told what they wait for."""
    rule_book: RuleBook = attrs.field(factory=RuleBook)
    meter: Meter = attrs.field(factory=lambda: Meter(RELAYED_ROUTES))
    pools: UpstreamPools = attrs.field(factory=UpstreamPools)
    turns: TurnKinds = attrs.field(factory=TurnKinds)
    request_ids: RequestIds = attrs.field(factory=RequestIds)
    on_task_error: Callable[[BaseException], None]
    tasks: set[asyncio.Task[None]] = attrs.field(factory=set)
    """Tasks of requests that wait; a graceful shutdown waits for them."""
