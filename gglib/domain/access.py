"""What a key opens: scopes, and the models that may be used with it."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase

import attrs

from gglib.errors import Forbidden

__all__ = ["EVERYTHING", "NOTHING", "USE", "Grant", "Scope"]


class Scope(StrEnum):
    """A kind of request that a key may open."""

    INFERENCE = "inference"
    """Have models answer, and learn which there are and, of all models, what runs."""
    READ = "read"
    """See what goes on: what runs, who waits, metrics, events. Nothing of anybody's prompts."""
    ADMIN = "admin"
    """Everything: load, unload, engines' output, settings anew."""


@attrs.frozen
class Grant:
    """What somebody who has been let in may do."""

    scopes: frozenset[Scope]
    models: tuple[str, ...] | None = None
    """Names of the models that may be used, with ``*`` for any characters; ``None`` = all."""

    def has(self, *sufficient: Scope) -> bool:
        """Whether one of these scopes, or admin's, is there."""
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(sufficient)

    def allows(self, model_name: str) -> bool:
        """Whether the model of that very name may be used."""
        models = self.models
        return models is None or any(fnmatchcase(model_name, each) for each in models)

    def refusal(self, name: str) -> Forbidden:
        """Return what to say to somebody who names a model that is not one of theirs.

        Whether there is one of that name is not told.
        """
        allowed = ", ".join(f"'{each}'" for each in self.models or ())
        return Forbidden(f"this key may not use the model '{name[:200]}', but only {allowed}")


EVERYTHING = Grant(frozenset(Scope))
#: What somebody may do who has not been let in.
NOTHING = Grant(frozenset(), ())
#: What a key may do of which nothing else is said, and everybody where no key is asked for.
USE = Grant(frozenset({Scope.INFERENCE}))
