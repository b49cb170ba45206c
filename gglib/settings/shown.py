"""Settings as they are shown: each value, where it was said, and no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Profile
from gglib.settings.key_lines import KeyPath, dotted
from gglib.settings.values import LoadedSettings

__all__ = ["HIDDEN", "ShownSetting", "shown_settings", "without_secret_arguments"]

HIDDEN = "(not shown)"

#: Sections whose keys are adapters' own.
_STRANGERS = ("engines", "runners", "sources")
#: Names of what opens something: in sections whose keys are somebody else's, and of flags.
_SECRET = re.compile(r"(key|token|secret|password|passphrase|credentials?)s?$", re.I)


@attrs.frozen
class ShownSetting:
    """One value: plain data as the file would have it, ``None`` where it has no way to say it."""

    key: str
    value: Any
    source: str
    """``default``, ``file PATH:LINE``, ``environment NAME`` or ``flag --NAME``."""


def shown_settings(loaded: LoadedSettings) -> Iterator[ShownSetting]:
    """Yield every value that holds, in the order of the reference. Secrets are hidden.

    Of tables that belong to a name, such as a model, what the file says of it.
    """
    settings, sources = loaded.settings, loaded.sources
    yield ShownSetting("data_dir", str(settings.data_dir), sources["data_dir"])
    file = None if settings.config_file is None else str(settings.config_file)
    yield ShownSetting("config_file", file, sources["config_file"])
    for section in ("gateway", "serving", "routing", "pool"):
        for field in attrs.fields(type(getattr(settings, section))):
            key = f"{section}.{field.name}"
            value = getattr(getattr(settings, section), field.name)
            yield ShownSetting(key, _plain((section, field.name), value), sources[key])
    tables: list[tuple[KeyPath, Mapping[str, Any]]] = [
        (("inference",), settings.inference.set_fields()),
        *(
            ((section, name), table)
            for section in _STRANGERS
            for name, table in getattr(settings, section).items()
        ),
        *((("models", name), model.as_written()) for name, model in settings.models.items()),
    ]
    for where, table in tables:
        for key, value in table.items():
            path = (*where, key)
            if (source := sources.get(dotted(path), "default")) != "default":
                yield ShownSetting(dotted(path), _plain(path, value), source)


def _plain(path: KeyPath, value: Any) -> Any:
    """Return ``value`` as plain data, without what opens something."""
    name = str(path[-1])
    if isinstance(value, InferenceConfig):
        value = value.set_fields()
    elif isinstance(value, Profile):
        value = {
            "inference": value.inference,
            "set": value.set_parameters,
            "strip": value.strip_parameters,
        }
    several = isinstance(value, list | tuple)
    if name == "api_keys" or (path[0] in _STRANGERS and _SECRET.search(name)):
        count = f"{len(value)} {HIDDEN}" if value else []
        return count if several else HIDDEN
    if isinstance(value, Mapping):
        # Variables carry tokens under any name.
        hides = name == "environment"
        return {key: HIDDEN if hides else _plain((*path, key), item) for key, item in value.items()}
    if several:
        return without_secret_arguments([_plain(path, each) for each in value])
    return str(value) if isinstance(value, Path) else value


def without_secret_arguments(values: Sequence[Any]) -> list[Any]:
    """Return a list, which may be a command's, without what follows ``--api-key`` and the like."""
    shown: list[Any] = []
    hides = False
    for value in values:
        name, equals, _ = str(value).partition("=")
        is_flag = name.startswith("-") and _SECRET.search(name) is not None
        if hides and not is_flag:
            shown.append(HIDDEN)
        else:
            shown.append(f"{name}={HIDDEN}" if is_flag and equals else value)
        hides = is_flag and not equals
    return shown
