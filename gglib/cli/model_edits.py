"""``gglib model rename``, ``alias``, ``tag``, ``set``, ``unset`` and ``profile``."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import anyio
from cyclopts import App, Parameter

from gglib.cli.model_views import describe, shown_value, written
from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import print_json, print_table, say
from gglib.domain.model import Model
from gglib.errors import InvalidRequest
from gglib.services.model_settings import (
    model_keys,
    parse_setting,
    settings_of,
)
from gglib.services.models import ModelService

__all__ = ["alias", "profile", "rename", "set_", "tag", "unset"]

alias = App(name="alias", help="Other names for a model.", help_format="plaintext")
tag = App(name="tag", help="Words that mark models.", help_format="plaintext")
profile = App(
    name="profile",
    help="Named settings for requests: a request asks for them as NAME:PROFILE.",
    help_format="plaintext",
)

_Some = Annotated[tuple[str, ...], Parameter(negative=())]


def rename(name: str, new_name: str, /, *, common: Common = COMMON) -> None:
    """Call a model otherwise. What is set for it stays.

    Parameters
    ----------
    name
        Its name, or an alias.
    new_name
        What it is to be called.
    """
    model = _change(common, lambda models: models.rename(name, new_name))
    _tell(model, common, f"renamed to {model.name}")


@alias.command(name="add")
def add_aliases(name: str, /, *aliases: str, common: Common = COMMON) -> None:
    """Give a model more names.

    Parameters
    ----------
    name
        The model.
    aliases
        Names by which requests may ask for it, too.
    """
    _need(aliases, "an alias")
    model = _change(common, lambda models: models.add_aliases(name, aliases))
    _tell(model, common, f"{model.name} is also {', '.join(model.aliases) or 'nothing else'}")


@alias.command(name="remove")
def remove_aliases(name: str, /, *aliases: str, common: Common = COMMON) -> None:
    """Take names from a model.

    Parameters
    ----------
    name
        The model.
    aliases
        The names it is to lose.
    """
    _need(aliases, "an alias")
    model = _change(common, lambda models: models.remove_aliases(name, aliases))
    _tell(model, common, f"{model.name} is also {', '.join(model.aliases) or 'nothing else'}")


@tag.command(name="add")
def add_tags(name: str, /, *tags: str, common: Common = COMMON) -> None:
    """Mark a model; `gglib model list --tag` finds it by that.

    Parameters
    ----------
    name
        The model.
    tags
        Any words.
    """
    _need(tags, "a tag")
    model = _change(common, lambda models: models.add_tags(name, tags))
    _tell(model, common, f"{model.name} has tags: {', '.join(model.tags)}")


@tag.command(name="remove")
def remove_tags(name: str, /, *tags: str, common: Common = COMMON) -> None:
    """Take tags from a model.

    Parameters
    ----------
    name
        The model.
    tags
        Those it is to lose.
    """
    _need(tags, "a tag")
    model = _change(common, lambda models: models.remove_tags(name, tags))
    _tell(model, common, f"{model.name} has tags: {', '.join(model.tags) or 'none'}")


def set_(name: str, /, *settings: str, common: Common = COMMON) -> None:
    """Set how a model is served.

    KEY=VALUE, as in [models.NAME] of a settings file: `context_size=8192`,
    `inference.temperature=0.7`, `set.top_k=40`, `environment.NAME=VALUE`, `pinned=true`.
    KEY= takes a setting back. Without any, the keys are listed with what is set.

    Parameters
    ----------
    name
        The model.
    settings
        What to set.
    """
    if not settings:
        _say_keys(_settings_of_model(name, common), model_keys(), common)
        return
    changes = _parsed(settings)
    model = _change(common, lambda models: models.configure(name, changes), changes)
    _tell_settings(model, settings_of(model.defaults), changes, common)


def unset(name: str, /, *keys: str, common: Common = COMMON) -> None:
    """Take settings of a model back.

    Parameters
    ----------
    name
        The model.
    keys
        What is no longer to be set, such as `context_size`, or `inference` for all of it.
    """
    _need(keys, "a key")
    changes = dict.fromkeys(keys)
    model = _change(common, lambda models: models.configure(name, changes))
    _tell_settings(model, settings_of(model.defaults), changes, common)


@profile.command(name="set")
def set_profile(name: str, profile_name: str, /, *settings: str, common: Common = COMMON) -> None:
    """Make a profile of a model, or change one.

    KEY=VALUE, such as `inference.temperature=0.2`, `set.NAME=VALUE` or `strip=NAME,NAME`.
    KEY= takes a setting back.

    Parameters
    ----------
    name
        The model.
    profile_name
        The profile; requests ask for it as NAME:PROFILE.
    settings
        What to set.
    """
    _need(settings, "KEY=VALUE")
    changes = _parsed(settings)
    model = _change(common, lambda models: models.set_profile(name, profile_name, changes))
    if common.json:
        print_json(_profiles(model))
    else:
        say(f"{model.name}:{profile_name} is set")


@profile.command(name="remove")
def remove_profile(name: str, profile_name: str, /, *, common: Common = COMMON) -> None:
    """Take a profile from a model.

    Parameters
    ----------
    name
        The model.
    profile_name
        The profile.
    """
    model = _change(common, lambda models: models.remove_profile(name, profile_name))
    if common.json:
        print_json(_profiles(model))
    else:
        say(f"removed {model.name}:{profile_name}")


@profile.command(name="list")
def list_profiles(name: str, /, *, common: Common = COMMON) -> None:
    """List a model's profiles.

    Parameters
    ----------
    name
        The model.
    """
    model = _found(name, common)
    if common.json:
        print_json(_profiles(model))
        return
    if not model.profiles:
        say(f"{model.name} has no profiles; `gglib model profile set` makes one")
        return
    rows = [
        (each.name, key, written(value))
        for each in model.profiles
        for key, value in (settings_of(each) or {"-": "-"}).items()
    ]
    print_table(("PROFILE", "KEY", "VALUE"), rows)


def _change(
    common: Common,
    change: Callable[[ModelService], Awaitable[Model]],
    settings: Mapping[str, Any] | None = None,
) -> Model:
    async def work() -> Model:
        async with compose_for(common) as parts:
            if settings:
                _check_adapters(settings, parts.settings)
            return await change(await parts.models())

    return anyio.run(work)


def _found(name: str, common: Common) -> Model:
    async def work() -> Model:
        async with compose_for(common) as parts:
            return (await (await parts.models()).resolve(name)).model

    return anyio.run(work)


def _settings_of_model(name: str, common: Common) -> dict[str, Any]:
    return settings_of(_found(name, common).defaults)


def _check_adapters(settings: Mapping[str, Any], here: Any) -> None:
    """Refuse engines and runners that are not here: a typing error would show at a request."""
    from gglib.plugins import ENGINES, PROCESS_RUNNERS, adapter_names

    groups = {"engine": (ENGINES, here.engines), "runner": (PROCESS_RUNNERS, here.runners)}
    for key, (group, sections) in groups.items():
        said = settings.get(key)
        known = sorted({*adapter_names(group), *sections} - {"command"})
        for wanted in (said,) if isinstance(said, str) else said or ():
            if wanted in known:
                continue
            close = difflib.get_close_matches(str(wanted), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
            raise InvalidRequest(f"no {key} is called '{wanted}'; {hint}", key)


def _parsed(settings: tuple[str, ...]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for each in settings:
        key, equals, text = each.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"'{each}' is no KEY=VALUE; KEY= takes a setting back", "settings")
        changes[key] = parse_setting(key, text) if text else None
    return changes


def _need(words: tuple[str, ...], what: str) -> None:
    if not words:
        raise InvalidRequest(f"name {what}; --help shows how", "arguments")


def _tell(model: Model, common: Common, text: str) -> None:
    if common.json:
        print_json(describe(model))
    else:
        say(text)


def _tell_settings(
    model: Model, there: Mapping[str, Any], changes: Mapping[str, Any], common: Common
) -> None:
    if common.json:
        print_json({"model": model.name, "settings": _without_secrets(there)})
        return
    for key in changes:
        of_key = {each: value for each, value in there.items() if each == key}
        for each, value in of_key.items():
            say(f"{model.name}: {each} = {written(shown_value(each, value))}")
        if not of_key:
            say(f"{model.name}: {key} is not set")


def _say_keys(there: Mapping[str, Any], known: tuple[str, ...], common: Common) -> None:
    if common.json:
        print_json({"settings": _without_secrets(there), "keys": list(known)})
        return
    extra = [key for key in there if key not in known]
    rows = [(key, written(shown_value(key, there.get(key, "-")))) for key in (*known, *extra)]
    print_table(("KEY", "VALUE"), rows)


def _without_secrets(there: Mapping[str, Any]) -> dict[str, Any]:
    return {key: shown_value(key, value) for key, value in there.items()}


def _profiles(model: Model) -> dict[str, Any]:
    return {each.name: settings_of(each) for each in model.profiles}
