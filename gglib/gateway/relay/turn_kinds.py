"""Which classes a gateway's relayed requests are of: chosen once, when it starts."""

from __future__ import annotations

import attrs

from gglib.gateway.relay.passthrough import PassThroughTurn
from gglib.gateway.relay.relayed import RelayTurn
from gglib.gateway.relay.tunnel import TunnelTurn

__all__ = ["TurnKinds"]


@attrs.frozen(kw_only=True)
class TurnKinds:
    """Classes that do more than these cost nothing where nobody wants them."""

    relay: type[RelayTurn] = RelayTurn
    pass_through: type[PassThroughTurn] = PassThroughTurn
    tunnel: type[TunnelTurn] = TunnelTurn
