"""Time, so that tests and simulations can own it."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Clock"]


class Clock(ABC):
    """Where time comes from."""

    __slots__ = ()

    @abstractmethod
    def now(self) -> float:
        """Return Unix seconds; may jump when the machine's clock is set."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin; never goes back."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``; a cancellation point even for 0."""
