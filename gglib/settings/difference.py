"""What two settings differ in, and which of that a running gateway can take up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from gglib.settings.key_lines import dotted
from gglib.settings.values import DeclaredModel, Settings

__all__ = ["Difference", "difference", "while_running"]

_LIVE_SECTIONS = ("gateway", "routing", "pool", "inference")
#: What a gateway has bound, opened or done when it runs: it has that until it ends.
_FIXED = frozenset({"gateway.host", "gateway.port", "gateway.orphans", "pool.warmup"})
#: What listens speaks TLS from its start, or never; by which certificate may change.
_TLS = frozenset(f"gateway.tls_{name}" for name in ("certificate", "key", "key_password_file"))
_FIXED_TABLES = ("engines", "runners", "sources")


@attrs.frozen(kw_only=True)
class Difference:
    """Dotted keys, in the order of the reference, models last."""

    now: tuple[str, ...] = ()
    """What a running gateway takes up. A model that came or went is one key, ``models.NAME``."""
    at_next_start: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.now or self.at_next_start)


def difference(old: Settings, new: Settings) -> Difference:
    """Return what ``new`` says otherwise than ``old``, key by key."""
    keys = [*_section_keys(old, new), *_table_keys(old, new), *_model_keys(old.models, new.models)]
    fixed = {key for key in keys if _is_fixed(key)}
    if _has_tls(old) != _has_tls(new):
        fixed |= _TLS & set(keys)
    return Difference(
        now=tuple(key for key in keys if key not in fixed),
        at_next_start=tuple(key for key in keys if key in fixed),
    )


def while_running(old: Settings, new: Settings) -> Settings:
    """Return what holds for a gateway that runs by ``old`` and is told ``new``.

    That is ``new``, but for what takes effect at the next start.
    """
    kept = {section: getattr(old, section) for section in ("data_dir", "serving", *_FIXED_TABLES)}
    always = _FIXED if _has_tls(old) == _has_tls(new) else _FIXED | _TLS
    for section in _LIVE_SECTIONS:
        values = getattr(old, section)
        fixed = {
            field.name: getattr(values, field.name)
            for field in attrs.fields(type(values))
            if f"{section}.{field.name}" in always
        }
        kept[section] = attrs.evolve(getattr(new, section), **fixed)
    return attrs.evolve(new, **kept)


def _has_tls(settings: Settings) -> bool:
    return settings.gateway.tls_certificate is not None


def _is_fixed(key: str) -> bool:
    section = key.partition(".")[0]
    return key in _FIXED or section not in {*_LIVE_SECTIONS, "models"}


def _section_keys(old: Settings, new: Settings) -> Iterator[str]:
    if old.data_dir != new.data_dir:
        yield "data_dir"
    for section in ("serving", *_LIVE_SECTIONS):
        before, after = getattr(old, section), getattr(new, section)
        for field in attrs.fields(type(before)):
            if getattr(before, field.name) != getattr(after, field.name):
                yield f"{section}.{field.name}"


def _table_keys(old: Settings, new: Settings) -> Iterator[str]:
    for section in _FIXED_TABLES:
        before, after = getattr(old, section), getattr(new, section)
        for name in _names(before, after):
            if before.get(name) != after.get(name):
                yield dotted((section, name))


def _model_keys(
    old: Mapping[str, DeclaredModel], new: Mapping[str, DeclaredModel]
) -> Iterator[str]:
    for name in _names(old, new):
        if name not in old or name not in new:
            yield dotted(("models", name))
            continue
        before, after = old[name].as_written(), new[name].as_written()
        for key in _names(before, after):
            if before.get(key) != after.get(key):
                yield dotted(("models", name, key))


def _names(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the keys of both, the new order first."""
    return list(dict.fromkeys([*new, *old]))
