"""``gglib model``: the models gglib knows."""

from __future__ import annotations

from typing import Annotated, Literal

import anyio
from cyclopts import App, Parameter

from gglib.cli.fitting import FitThere, best_of, describe_fits, fits_of
from gglib.cli.model_views import count, describe, describe_whole, say_model, summary
from gglib.cli.options import COMMON, Common, compose_for, loaded_for
from gglib.cli.output import print_json, print_table, printable, say, size
from gglib.domain.model import Capability, Model
from gglib.domain.model_search import find_models

__all__ = ["app"]

app = App(name="model", help="The models gglib knows.", help_format="plaintext")
#: Where the rest is, imported when it is called.
for _name, (_place, _help) in {
    "import": ("imports:app", "Take over what other tools know."),
    "scan": ("model_files:scan", "Add every model in a folder and all below it, where it lies."),
    "verify": ("model_files:verify", "Compare models' files with what they were."),
    "search": ("pulls:search", "Look for models on the hub."),
    "quants": ("pulls:quants", "List the quantizations of a repository, and which fit here."),
    "pull": ("pulls:pull", "Fetch a model from the hub."),
    "downloads": ("pulls:downloads", "List what is being fetched, or give it up."),
    "outdated": ("pulls:outdated", "List the fetched models that the hub has anew."),
    "rename": ("model_edits:rename", "Give a model another name."),
    "alias": ("model_edits:alias", "Further names of a model: add, remove."),
    "tag": ("model_edits:tag", "Words to find models by: add, remove."),
    "set": ("model_edits:set_", "Say how a model is served: KEY=VALUE."),
    "unset": ("model_edits:unset", "Take back what was said by `set`."),
    "profile": ("model_edits:profile", "Ways of asking a model: set, remove, list."),
}.items():
    app.command(f"gglib.cli.{_place}", name=_name, help=_help)


@app.command
def add(
    path: str,
    /,
    *,
    name: str | None = None,
    alias: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    runner: str | None = None,
    common: Common = COMMON,
) -> None:
    """Add a GGUF file, where it lies.

    Parameters
    ----------
    path
        The file; of a sharded model, any shard. Or NAME:REST, what the source NAME calls REST.
    name
        What requests call it; else the file's name.
    alias
        Another name for it; may be given several times.
    runner
        The file is on the machine of this runner's servers, which will serve it.
    """

    async def work() -> Model:
        async with compose_for(common) as parts:
            models = await parts.models()
            return await models.add(path, name=name, aliases=alias, runner=runner)

    model = anyio.run(work)
    if common.json:
        print_json(describe(model))
    else:
        say(f"added {model.name} ({summary(model)})")


@app.command(name="list")
def list_(
    *search: str,
    sort: Literal[
        "name", "size", "added", "parameters", "context", "architecture", "quantization"
    ] = "name",
    reverse: Annotated[bool, Parameter(negative=())] = False,
    capability: Annotated[tuple[Capability, ...], Parameter(negative=())] = (),
    tag: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    common: Common = COMMON,
) -> None:
    """List the models.

    Parameters
    ----------
    search
        Words that a model's name, alias, tag, title, kind or path has in it.
    sort
        By what: texts from A, sizes from the largest, dates from the newest.
    reverse
        The other way round.
    capability
        Those that can do that; may be given several times.
    tag
        Those with that tag; may be given several times.
    """

    async def work() -> list[Model]:
        async with compose_for(common) as parts:
            models = await parts.models()
            return await models.list()

    known = anyio.run(work)
    models = find_models(
        known,
        search=" ".join(search),
        capabilities=capability,
        tags=tag,
        sort=sort,
        reverse=reverse,
    )
    if common.json:
        print_json([describe(model) for model in models])
        return
    if not known:
        say("no models yet; `gglib model add PATH` adds one, `gglib model scan FOLDER` many")
        return
    if not models:
        say(f"none of {len(known)} models is so; `gglib model list` shows them all")
        return
    print_table(_HEADINGS, [_row(model) for model in models])


_HEADINGS = (
    "NAME",
    "ARCHITECTURE",
    "PARAMETERS",
    "QUANTIZATION",
    "SIZE",
    "CONTEXT",
    "ALIASES",
    "TAGS",
)


def _row(model: Model) -> tuple[str, ...]:
    return (
        model.name,
        printable(model.facts.architecture or "-"),
        count(model.facts.parameters),
        model.facts.quantization or "-",
        size(model.size_bytes),
        str(model.facts.context_length or "-"),
        ", ".join(model.aliases) or "-",
        ", ".join(model.tags) or "-",
    )


@app.command
def show(name: str, /, *, common: Common = COMMON) -> None:
    """Show all that is known of a model, and where each of its settings is from.

    Parameters
    ----------
    name
        Its name, an alias, or its file's name.
    """

    async def work() -> Model:
        async with compose_for(common) as parts:
            models = await parts.models()
            return (await models.resolve(name)).model

    model = anyio.run(work)
    loaded = loaded_for(common)
    if common.json:
        print_json(describe_whole(model, loaded))
    else:
        say_model(model, loaded)


@app.command
def remove(
    name: str,
    /,
    *,
    delete_file: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Forget a model. Its file stays where it is.

    Parameters
    ----------
    name
        Its name, or an alias.
    delete_file
        Delete its files, too, if gglib fetched them.
    """

    async def work() -> Model:
        async with compose_for(common) as parts:
            models = await parts.models()
            return await models.remove(name, delete_files=delete_file)

    model = anyio.run(work)
    deleted = [str(path) for path in model.paths] if delete_file else []
    if common.json:
        print_json({"removed": model.name, "deleted": deleted})
    elif deleted:
        say(f"removed {model.name}, and deleted {printable(', '.join(deleted))}")
    else:
        say(f"removed {model.name}; {printable(str(model.path))} was not touched")


@app.command
def fit(
    name: str,
    /,
    *,
    context_size: int | None = None,
    gpu_layers: int | None = None,
    parallel: int | None = None,
    common: Common = COMMON,
) -> int:
    """Tell whether a model fits into the memory that is free now. Nothing is started.

    Parameters
    ----------
    name
        Its name, an alias, or its file's name.
    context_size
        Tokens of context; else as it is set for the model, or the model's own.
    gpu_layers
        Layers to put on GPUs; else as many as fit.
    parallel
        Slots that share the context.
    """
    asked = {"context_size": context_size, "gpu_layers": gpu_layers, "parallel": parallel}
    overrides = {key: value for key, value in asked.items() if value is not None}

    async def work() -> tuple[Model, list[FitThere]]:
        async with compose_for(common) as parts:
            model = (await (await parts.models()).resolve(name)).model
            return model, await fits_of(parts, model, overrides)

    model, found = anyio.run(work)
    best = best_of(found)
    if common.json:
        print_json(describe_fits(model, found))
    else:
        for each in found:
            say(each.line)
    return 0 if best.fits else 1
