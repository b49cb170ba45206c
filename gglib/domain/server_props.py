"""What a running server tells of itself."""

from __future__ import annotations

import attrs

from gglib.domain.validation import positive

__all__ = ["ServerProps"]


@attrs.frozen(kw_only=True)
class ServerProps:
    """How one server serves; ``None``: it does not tell."""

    slots_total: int | None = attrs.field(default=None, validator=positive)
    """How many requests it works on at once; more than that wait within it."""
    context_size: int | None = attrs.field(default=None, validator=positive)
    """The most tokens that one request may have, prompt and answer. Slots may share them."""
