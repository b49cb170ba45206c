"""``gglib model``: the models gglib knows."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
from cyclopts import App, Parameter

from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import print_json, print_table, say, size
from gglib.domain.memory_fit import MemoryFit
from gglib.domain.model import Model

__all__ = ["app"]

app = App(name="model", help="The models gglib knows.", help_format="plaintext")
app.command("gglib.cli.imports:app", name="import", help="Take over what other tools know.")


@app.command
def add(
    path: str,
    /,
    *,
    name: str | None = None,
    alias: Annotated[tuple[str, ...], Parameter(negative=())] = (),
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
    """

    async def work() -> Model:
        async with compose_for(common) as parts:
            models = await parts.models()
            return await models.add(path, name=name, aliases=alias)

    model = anyio.run(work)
    if common.json:
        print_json(describe(model))
    else:
        say(f"added {model.name} ({summary(model)})")


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the models."""

    async def work() -> list[Model]:
        async with compose_for(common) as parts:
            models = await parts.models()
            return await models.list()

    models = anyio.run(work)
    if common.json:
        print_json([describe(model) for model in models])
        return
    if not models:
        say("no models yet; `gglib model add PATH` adds one")
        return
    print_table(
        ("NAME", "ARCHITECTURE", "PARAMETERS", "QUANTIZATION", "SIZE", "CONTEXT", "ALIASES"),
        [
            (
                model.name,
                model.facts.architecture or "-",
                count(model.facts.parameters),
                model.facts.quantization or "-",
                size(model.size_bytes),
                str(model.facts.context_length or "-"),
                ", ".join(model.aliases) or "-",
            )
            for model in models
        ],
    )


@app.command
def show(name: str, /, *, common: Common = COMMON) -> None:
    """Show one model.

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
    described = describe(model)
    if common.json:
        print_json(described)
        return
    for key, value in described.items():
        if value not in (None, [], {}, ""):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            say(f"{key.replace('_', ' '):16} {' '.join(shown.split())[:200]}")


@app.command
def remove(name: str, /, *, common: Common = COMMON) -> None:
    """Forget a model. Its file stays where it is.

    Parameters
    ----------
    name
        Its name, or an alias.
    """

    async def work() -> Model:
        async with compose_for(common) as parts:
            models = await parts.models()
            return await models.remove(name)

    model = anyio.run(work)
    if common.json:
        print_json({"removed": model.name})
    else:
        say(f"removed {model.name}; {model.path} was not touched")


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

    async def work() -> tuple[Model, MemoryFit]:
        from gglib.services.memory import correction_from, fit_model, within

        async with compose_for(common) as parts:
            models = await parts.models()
            model = (await models.resolve(name)).model
            survey = await (await parts.devices()).survey()
            survey = within(survey, parts.settings.routing.budgets)
            runs = (await (await parts.catalog()).runs()).get(model.id, ())
            found = await fit_model(model, survey, overrides, correct=correction_from(runs))
            return model, found

    model, found = anyio.run(work)
    if common.json:
        print_json(describe_fit(model, found))
    else:
        say(found.line)
    return 0 if found.fits else 1


def describe_fit(model: Model, found: MemoryFit) -> dict[str, Any]:
    """Return how a model fits as plain data."""
    estimate = found.estimate
    return {
        "model": model.name,
        "fits": found.fits,
        "context_size": estimate.context_size,
        "full_context": found.full_context,
        "fitting_context": found.fitting_context,
        "slots": estimate.slots,
        "layers": estimate.layers,
        "gpu_layers": estimate.gpu_layers,
        "source": estimate.source,
        "devices": [
            {
                "name": device,
                "needed_bytes": parts.total_bytes,
                "free_bytes": found.free.get(device, 0),
                "weights_bytes": parts.weights_bytes,
                "kv_bytes": parts.kv_bytes,
                "compute_bytes": parts.compute_bytes,
                "other_bytes": parts.other_bytes,
            }
            for device, parts in estimate.devices.items()
        ],
        "notes": list(found.notes),
    }


def summary(model: Model) -> str:
    """Return what a model is, in a few words."""
    facts = model.facts
    words = [
        facts.architecture,
        count(facts.parameters),
        facts.quantization,
        size(model.size_bytes),
    ]
    return ", ".join(word for word in words if word and word != "-")


def count(number: int | None) -> str:
    """Return a number of parameters as people read it."""
    if number is None:
        return "-"
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def describe(model: Model) -> dict[str, Any]:
    """Return a model as plain data."""
    facts = model.facts
    return {
        "id": model.id,
        "name": model.name,
        "aliases": list(model.aliases),
        "paths": [str(path) for path in model.paths],
        "size_bytes": model.size_bytes,
        "architecture": facts.architecture,
        "quantization": facts.quantization,
        "parameters": facts.parameters,
        "context_length": facts.context_length,
        "layers": facts.layers,
        "embedding_size": facts.embedding_size,
        "capabilities": sorted(facts.capabilities),
        "title": facts.display_name,
        "engine": model.defaults.engine,
        "source": model.origin.kind,
        "added_at": model.added_at,
    }
