"""What the doctor tells: one line for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from gglib.errors import GglibError

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["BROKEN", "OK", "WARNING", "Finding", "Look", "looked"]

OK, WARNING, BROKEN = "ok", "warning", "broken"


@attrs.frozen
class Finding:
    """One thing that was looked at. ``fix`` says what to do, when there is something."""

    subject: str
    state: str
    detail: str
    fix: str | None = None


#: Looks at one group of things. What it raises is told as a finding.
Look: TypeAlias = "Callable[[Composition], Awaitable[list[Finding]]]"


async def looked(subject: str, look: Look, parts: Composition) -> list[Finding]:
    """Return what ``look`` finds, or that it could not look: the other looks are worth having."""
    try:
        return await look(parts)
    except GglibError as error:
        return [Finding(subject, BROKEN, str(error))]
    except BaseException as error:
        from gglib.plugins import described, is_fault

        # Anything may be broken here: a plug-in, the disk, or gglib itself.
        if not is_fault(error):
            raise
        return [Finding(subject, BROKEN, described(error))]
