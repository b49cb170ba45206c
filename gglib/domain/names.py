"""How a name in a request finds its model. Pure: an index built from the catalog's models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePath

import attrs

from gglib.domain.model import Model, Profile
from gglib.errors import AmbiguousModel, ModelNotFound

__all__ = ["NameIndex", "ResolvedName"]


@attrs.frozen
class ResolvedName:
    """A model, and the profile that the name asked for."""

    model: Model
    profile: Profile | None = None


_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def _stem(path: PurePath) -> str:
    """Return a file's name without its suffix, and without the number of its shard."""
    return _SHARD.sub("", path.stem)


class NameIndex:
    """Names to models: exact name, then alias, then ``name:profile``, then file stem."""

    __slots__ = ("_aliases", "_by_name", "_stems")

    def __init__(self, models: Iterable[Model]) -> None:
        self._by_name: dict[str, ResolvedName] = {}
        self._aliases: dict[str, ResolvedName] = {}
        self._stems: dict[str, list[Model]] = {}
        for model in models:
            resolved = self._by_name[model.name] = ResolvedName(model)
            for alias in model.aliases:
                self._aliases.setdefault(alias, resolved)
            self._stems.setdefault(_stem(model.path), []).append(model)

    def find(self, name: str) -> ResolvedName | None:
        """Return the model that ``name`` means, or ``None`` if that is none, or not one."""
        found = self._by_name.get(name) or self._aliases.get(name)
        if found is not None:
            return found
        base, colon, profile_name = name.rpartition(":")
        if colon:
            found = self._by_name.get(base) or self._aliases.get(base)
            if found is not None:
                for profile in found.model.profiles:
                    if profile.name == profile_name:
                        return ResolvedName(found.model, profile)
        candidates = self._stems.get(name, ())
        return ResolvedName(candidates[0]) if len(candidates) == 1 else None

    def resolve(self, name: str) -> ResolvedName:
        """Return the model that ``name`` means.

        Raises:
            ModelNotFound: nothing answers to it; carries the closest names.
            AmbiguousModel: several files have that stem.
        """
        found = self.find(name)
        if found is not None:
            return found
        candidates = self._stems.get(name)
        if candidates:
            raise AmbiguousModel(name, tuple(sorted(model.name for model in candidates)))
        raise ModelNotFound(name, self.close_names(name))

    def close_names(self, name: str) -> tuple[str, ...]:
        """Return up to three known names that resemble ``name``, the closest first."""
        known = {known.casefold(): known for known in (*self._aliases, *self._by_name)}
        # A request may carry megabytes here; difflib is quadratic.
        wanted = name[:200].casefold()
        found = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        return tuple(known[match] for match in found)
