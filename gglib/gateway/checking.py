"""What ``gglib serve`` would find wrong with its settings, found without serving."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from gglib.bootstrap import compose
from gglib.domain.model import names_of_runners
from gglib.errors import AdapterError, ConfigurationError, Forbidden, StorageError
from gglib.gateway.name_doubts import declared_models, name_doubts, names_models
from gglib.gateway.reload import check_exposure
from gglib.gateway.telemetry.signals import check_telemetry
from gglib.logs import SilentSink
from gglib.plugins import ENGINES, PROCESS_RUNNERS, adapter_names
from gglib.services.memory_ledger import check_limits
from gglib.settings import LoadedSettings, Settings
from gglib.settings.file import unknown_key
from gglib.settings.key_lines import dotted

__all__ = ["check_settings"]

#: How errors of adapters, and of budgets, name the section at fault.
_SECTION = re.compile(r"\[((?:engines|runners)\.[^\]]+|routing\.budgets)\]")
#: Where a value of a file was said.
_ORIGIN = re.compile(r"file (.*):(\d+)", re.DOTALL)

#: A key that names an engine, a runner or a model; the name; where such names are from.
_Name = tuple[str, str, str]


async def check_settings(loaded: LoadedSettings) -> tuple[str, ...]:
    """Return if a gateway could be started by these settings, as far as they decide.

    Engines and runners are opened, in a data directory of their own; nothing is started. What
    is returned is legal and most likely not meant, in words.

    Raises:
        ConfigurationError: it could not, or a model could not be served; says where.
    """
    settings = loaded.settings
    try:
        check_exposure(settings.gateway)
    except Forbidden as error:
        raise _at(loaded, "gateway.host", str(error)) from None
    try:
        check_telemetry(settings)
    except ConfigurationError as error:
        raise _at(loaded, "telemetry.otlp_endpoint", error.message) from None
    for key, name, kind in _names(settings):
        known = _known(settings, kind)
        if name not in known:
            told = unknown_key(name, known).replace("key", kind, 1)
            raise _at(loaded, key, f"{key}: {told}")
    with tempfile.TemporaryDirectory(prefix="gglib-check-") as folder:
        await _check_adapters(loaded, Path(folder))
    return await _doubts(loaded)


async def _doubts(loaded: LoadedSettings) -> tuple[str, ...]:
    settings = loaded.settings
    if not names_models(settings):
        return ()
    models = {model.name: model for model in declared_models(settings)}
    if settings.data_dir.is_dir():
        try:
            async with compose(settings, events=SilentSink()) as parts:
                rows = await (await parts.catalog()).list()
        except StorageError:
            # Who needs the catalog will tell; without it, every name could be a model's.
            return ()
        models = {**{row.name: row for row in rows}, **models}
    return tuple(
        str(_at(loaded, dotted(doubt.path[:2]), str(doubt)))
        for doubt in name_doubts(settings, models.values())
    )


async def _check_adapters(loaded: LoadedSettings, folder: Path) -> None:
    settings = attrs.evolve(loaded.settings, data_dir=folder)
    async with compose(settings, events=SilentSink()) as parts:
        try:
            engines = await parts.engines()
            runners = await parts.runners()
            budgets = settings.routing.budgets
            # No machine is connected to for this: whatever it has may be right.
            elsewhere = dict.fromkeys(settings.runners)
            check_limits(budgets, await (await parts.devices()).survey(), elsewhere)
        except ConfigurationError as error:
            raise _at(loaded, _section_in(str(error)), error.message) from None
        for section, broken in (("engines", engines.broken), ("runners", runners.broken)):
            for name, failure in broken.items():
                if name in getattr(settings, section):
                    reason = failure.reason if isinstance(failure, AdapterError) else str(failure)
                    key = dotted((section, name))
                    raise _at(loaded, key, f"[{key}] {reason}")


def _names(settings: Settings) -> Iterator[_Name]:
    if settings.serving.engine:
        yield "serving.engine", settings.serving.engine, "engine"
    yield "serving.runner", settings.serving.runner, "runner"
    for name, model in settings.models.items():
        if model.engine is not None:
            yield dotted(("models", name, "engine")), model.engine, "engine"
        for runner in names_of_runners(model.runner):
            yield dotted(("models", name, "runner")), runner, "runner"


def _known(settings: Settings, kind: str) -> set[str]:
    if kind == "engine":
        return {*adapter_names(ENGINES), *settings.engines}
    return {*adapter_names(PROCESS_RUNNERS), *settings.runners}


def _section_in(message: str) -> str:
    found = _SECTION.search(message)
    return found[1] if found else ""


def _at(loaded: LoadedSettings, key: str, message: str) -> ConfigurationError:
    """Return an error about ``key``: at its line, if a file says it, else where it was said."""
    source = loaded.sources.get(key, "default")
    origin = _ORIGIN.fullmatch(source)
    if origin is not None:
        return ConfigurationError(message, origin[1], int(origin[2]))
    said = source.partition(" ")[2]
    file = loaded.settings.config_file
    return ConfigurationError(message, said or (None if file is None else str(file)))
