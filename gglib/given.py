"""Adapters that are given by hand, in place of those that are installed."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MethodType
from typing import Any, TypeAlias, TypeVar

import attrs

from gglib.errors import InvalidValue
from gglib.ports.context import AdapterFactory
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.downloader import Downloader
from gglib.ports.engine import Engine
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_hub import ModelHub
from gglib.ports.model_source import ModelSource
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.ports.pull_queue import PullQueue
from gglib.ports.server_client import ServerClient
from gglib.ports.server_registry import ServerRegistry
from gglib.services.sources import check_source_name

__all__ = ["Adapter", "GivenAdapters", "check_given", "given_name"]

P = TypeVar("P")

#: A port's instance, whose lifetime is its giver's, or a factory as an entry point names one:
#: gglib enters what it returns, and leaves it.
Adapter: TypeAlias = P | AdapterFactory[P]


def check_given(name: str, value: object, port: type[Any], *, factory: bool = True) -> None:
    """Raise ``TypeError`` unless ``value`` is an instance of ``port``, or may make one."""
    if isinstance(value, port):
        return
    is_class = isinstance(value, type)
    if factory and callable(value) and not (is_class and not hasattr(value, "__aenter__")):
        return
    got = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    expected = f"an instance of {port.__name__}"
    if factory:
        expected += ", or a factory: (AdapterContext) -> AsyncContextManager"
    raise TypeError(f"{name} is {got}; expected {expected}")


def given_name(value: object, group: str) -> str:
    """Return what an adapter that was given without a name is called.

    A factory that is installed in ``group`` has the name it is installed under: what is on
    record under the one is found under the other. Otherwise it is that of the factory, or of
    the class.
    """
    name = getattr(value, "__name__", None)
    if callable(value) and (installed := _installed_name(value, group)) is not None:
        return installed
    return str(name or type(value).__name__)


def _installed_name(value: object, group: str) -> str | None:
    """Return the name of the entry point that names this very object, or ``None``."""
    for entry in sorted(entry_points(group=group)):
        found = _imported(entry)
        same_method = isinstance(found, MethodType) and isinstance(value, MethodType)
        if found is value or (same_method and found == value):
            return entry.name
    return None


def _imported(entry: EntryPoint) -> object | None:
    """Return what ``entry`` names, if its module has been imported: what is at hand has."""
    try:
        found: object = operator.attrgetter(entry.attr)(sys.modules[entry.module])
    except Exception:  # a stranger's entry point may name anything
        return None
    return found


def _is_name(value: object, name: str) -> bool:
    """Return whether somebody gave ``value`` its name: a lambda and a partial have none."""
    nameless = isinstance(value, functools.partial) and not hasattr(value, "__name__")
    return not nameless and not name.startswith("<")


def _one(port: type[Any]) -> Callable[[Any, Any, Any], None]:
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is not None:
            check_given(attribute.name, value, port)

    return check


def _several(port: type[Any]) -> Callable[[Any, Any, Any], None]:
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{attribute.name} is a {type(value).__name__}; expected a mapping of names to "
                f"{port.__name__}s"
            )
        for name, each in value.items():
            if not isinstance(name, str) or not name:
                raise TypeError(f"{attribute.name} has the name {name!r}; expected a text")
            check_given(f"{attribute.name}[{name!r}]", each, port)

    return check


def _own_names(_instance: Any, attribute: Any, value: Mapping[str, Any]) -> None:
    """A server's record has its engine's own name, by which its runner looks for it."""
    for name, engine in value.items():
        if isinstance(engine, Engine) and engine.name != name:
            raise InvalidValue(f"{attribute.name}[{name!r}].name", engine.name, repr(name))


def _source_names(_instance: Any, _attribute: Any, value: Mapping[str, Any]) -> None:
    for name in value:
        check_source_name(name)


@attrs.frozen(kw_only=True, eq=False)
class GivenAdapters:
    """What takes the place of installed adapters; ``None``: the installed one.

    ``runner`` and ``engine`` serve every model that names no other. ``runners``, ``engines``
    and ``sources`` are there by name, beside the installed and the configured; one of the
    same name takes the other's place.

    Raises:
        TypeError: one is neither an instance of its port nor a factory.
        InvalidValue: a name is taken, or cannot be one.
    """

    catalog: Adapter[ModelCatalog] | None = attrs.field(default=None, validator=_one(ModelCatalog))
    registry: Adapter[ServerRegistry] | None = attrs.field(
        default=None, validator=_one(ServerRegistry)
    )
    source: Adapter[ModelSource] | None = attrs.field(default=None, validator=_one(ModelSource))
    process_table: Adapter[ProcessTable] | None = attrs.field(
        default=None, validator=_one(ProcessTable)
    )
    devices: Adapter[DeviceInventory] | None = attrs.field(
        default=None, validator=_one(DeviceInventory)
    )
    server_client: Adapter[ServerClient] | None = attrs.field(
        default=None, validator=_one(ServerClient)
    )
    downloader: Adapter[Downloader] | None = attrs.field(default=None, validator=_one(Downloader))
    hub: Adapter[ModelHub] | None = attrs.field(default=None, validator=_one(ModelHub))
    pull_queue: Adapter[PullQueue] | None = attrs.field(default=None, validator=_one(PullQueue))
    runner: Adapter[ProcessRunner] | None = attrs.field(default=None, validator=_one(ProcessRunner))
    engine: Adapter[Engine] | None = attrs.field(default=None, validator=_one(Engine))
    runners: Mapping[str, Adapter[ProcessRunner]] = attrs.field(
        factory=dict, validator=_several(ProcessRunner)
    )
    engines: Mapping[str, Adapter[Engine]] = attrs.field(
        factory=dict, validator=[_several(Engine), _own_names]
    )
    sources: Mapping[str, Adapter[ModelSource]] = attrs.field(
        factory=dict, validator=[_several(ModelSource), _source_names]
    )

    def __attrs_post_init__(self) -> None:
        name = self.runner_name
        if name is not None and not _is_name(self.runner, name):
            expected = 'a factory with a name; give it by one: runners={"NAME": …}'
            raise InvalidValue("runner", self.runner, expected)
        if name is not None and self.runners.get(name, self.runner) is not self.runner:
            raise InvalidValue("runners", name, "names other than that of runner")

    @functools.cached_property
    def runner_name(self) -> str | None:
        """What servers of ``runner`` are recorded under: two kinds must not be confused."""
        return None if self.runner is None else given_name(self.runner, "gglib.process_runners")

    @property
    def all_runners(self) -> Mapping[str, Adapter[ProcessRunner]]:
        """The given runners by name, the default one first."""
        name = self.runner_name
        default = {} if name is None or self.runner is None else {name: self.runner}
        return {**default, **self.runners}
