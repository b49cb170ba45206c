"""What requests for text are made to say, by the settings of their model and its profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from gglib.domain.inference import InferenceConfig, overlay
from gglib.domain.names import ResolvedName

__all__ = ["BodyRules", "RuleBook"]

#: Routes whose requests ask for text, which alone have such parameters.
_TEXT_PATHS = frozenset(
    {
        b"/v1/chat/completions",
        b"/v1/completions",
        b"/v1/messages",
        b"/completion",
        b"/infill",
    }
)
#: One intent in the words of several APIs: a request that says one of them has said it.
_SYNONYMS = {"max_tokens": ("max_tokens", "max_completion_tokens", "n_predict")}

_Fields = Mapping[str, msgspec.Raw]


def _encoded(values: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    return {
        name: msgspec.Raw(msgspec.json.encode(dict(value) if isinstance(value, Mapping) else value))
        for name, value in values.items()
    }


@attrs.frozen
class BodyRules:
    """Parameters to strip, to set, and to add where a request says nothing, as JSON."""

    stripped: frozenset[str]
    forced: _Fields
    defaults: _Fields

    def apply(self, fields: dict[str, msgspec.Raw]) -> None:
        """Change the fields of a body; those it has no say in keep their very bytes."""
        for name in self.stripped:
            fields.pop(name, None)
        for name, value in self.defaults.items():
            if not any(said in fields for said in _SYNONYMS.get(name, (name,))):
                fields[name] = value
        fields.update(self.forced)


class RuleBook:
    """The rules of every model and profile, each worked out once."""

    __slots__ = ("_everyone", "_known")

    def __init__(self, everyone: InferenceConfig | None = None) -> None:
        """``everyone``: what requests for any model say that say nothing else."""
        self._everyone = everyone
        self._known: dict[tuple[int, str | None], tuple[ResolvedName, BodyRules | None]] = {}

    def rules_for(self, resolved: ResolvedName, target: bytes) -> BodyRules | None:
        """Return what changes a request's body; ``None``: nothing does."""
        profile = resolved.profile
        key = (resolved.model.id, None if profile is None else profile.name)
        known = self._known.get(key)
        if known is None or known[0].model is not resolved.model:
            known = self._known[key] = (resolved, self._make(resolved))
        rules = known[1]
        if rules is None or target.partition(b"?")[0] not in _TEXT_PATHS:
            return None
        return rules

    def _make(self, resolved: ResolvedName) -> BodyRules | None:
        of_model, profile = resolved.model.defaults, resolved.profile
        merged = overlay(
            ("profile", profile.inference if profile else None),
            ("model", of_model.inference),
            ("global", self._everyone),
        ).config.set_fields()
        forced = dict(of_model.set_parameters)
        stripped = set(of_model.strip_parameters)
        if profile is not None:
            forced |= profile.set_parameters
            stripped |= set(profile.strip_parameters)
        if not (merged or forced or stripped):
            return None
        return BodyRules(frozenset(stripped), _encoded(forced), _encoded(merged))
