"""Names of models in the settings that are nobody's: legal, for a model may be added later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from gglib.bootstrap import declarations_of
from gglib.domain.model import Model
from gglib.domain.names import NameIndex
from gglib.errors import AmbiguousModel, ModelNotFound
from gglib.settings import Settings
from gglib.settings.key_lines import KeyPath, dotted

__all__ = ["NameDoubt", "declared_models", "name_doubts", "names_models"]


@attrs.frozen
class NameDoubt:
    """A name that stands under ``path``, and what is the matter with it."""

    path: KeyPath
    name: str
    reason: str

    @property
    def key(self) -> str:
        """Where it stands, dotted."""
        return dotted(self.path)

    def __str__(self) -> str:
        return f"{self.key} names '{self.name}': {self.reason}"


def names_models(settings: Settings) -> bool:
    """Whether there is a name to doubt."""
    return any(True for _ in _names(settings))


def name_doubts(settings: Settings, models: Iterable[Model]) -> tuple[NameDoubt, ...]:
    """Return the names of planners and of the warm-up that mean none of ``models``.

    Planners know models by their own names alone; the warm-up asks for them as requests do.
    """
    models = tuple(models)
    index = NameIndex(models)
    own = {model.name for model in models}
    doubts = []
    for path, name in _names(settings):
        found = index.find(name)
        if name in own or (found is not None and path[0] == "pool"):
            continue
        if found is not None:
            reason = f"that is another name of '{found.model.name}', and only that one counts here"
        else:
            reason = _reason(index, name)
        doubts.append(NameDoubt(path, name, reason))
    return tuple(doubts)


def declared_models(settings: Settings) -> list[Model]:
    """Return the models that the settings declare, by their names; their files are not read."""
    return [
        Model(
            id=0,
            name=declared.name,
            paths=(declared.path,),
            size_bytes=0,
            aliases=declared.aliases,
            profiles=declared.profiles,
        )
        for declared in declarations_of(settings)
    ]


def _reason(index: NameIndex, name: str) -> str:
    try:
        index.resolve(name)
    except AmbiguousModel as error:
        return str(error)
    except ModelNotFound as error:
        if error.close_names:
            close = " or ".join(f"'{each}'" for each in error.close_names)
            return f"there is no such model; did you mean {close}?"
    return "there is no such model, and it means nothing until there is"


def _names(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yield every name, and where it stands. The planners' own tables have been checked."""
    routing = settings.routing
    for group, table in routing.groups.items():
        for name in table["members"]:
            yield ("routing", "groups", group, "members"), name
    for names in routing.matrix.get("sets", ()):
        for name in names:
            yield ("routing", "matrix", "sets"), name
    for name in routing.matrix.get("costs", ()):
        yield ("routing", "matrix", "costs"), name
    for name in settings.pool.warmup:
        yield ("pool", "warmup"), name
