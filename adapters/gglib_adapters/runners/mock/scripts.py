"""Which script the next start of a model follows."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gglib_adapters.runners.mock.script import MockScript

__all__ = ["Scripts"]


class Scripts:
    """Scripts for some models by name, and for all others; of each the last one repeats."""

    def __init__(self, for_others: Sequence[MockScript]) -> None:
        self._for_others = list(for_others) or [MockScript()]
        self._left: dict[str, list[MockScript]] = {}
        self._lock = threading.Lock()

    def set(self, model_name: str, scripts: Sequence[MockScript]) -> None:
        """Let the next starts of a model follow ``scripts``; none = what the others follow."""
        with self._lock:
            self._left[model_name] = list(scripts or self._for_others)

    def next(self, model_name: str) -> MockScript:
        """Return the script of a start of this model, which is beginning."""
        with self._lock:
            left = self._left.setdefault(model_name, list(self._for_others))
            return left.pop(0) if len(left) > 1 else left[0]
