"""Models by name: the catalog's rows under those that the configuration declares."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest

from gglib.bootstrap import SystemClock
from gglib.domain.model import ModelDefaults, ModelFacts
from gglib.errors import (
    AmbiguousModel,
    DatabaseCorrupt,
    InvalidModelFile,
    InvalidRequest,
    InvalidValue,
    ModelExists,
    ModelFileMissing,
    ModelNotFound,
)
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib.services.models import Declaration, ModelService
from gglib.services.sources import ModelSources, reference_of
from gglib.testing.contexts import RecordingSink, make_context
from gglib_adapters.catalog.sqlite import open_sqlite_catalog
from gglib_adapters.sources.file import open_file_source

TINY = tiny_gguf()


class SteppedClock(SystemClock):
    """A clock whose sleeps end when the test says so."""

    def __init__(self) -> None:
        self.asleep = anyio.Event()
        self.wake = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep until woken."""
        assert seconds > 0
        self.asleep.set()
        await self.wake.wait()
        self.wake = anyio.Event()

    async def step(self) -> None:
        """Let one sleep end, and return when the next begins."""
        await self.asleep.wait()
        self.asleep = anyio.Event()
        self.wake.set()
        await self.asleep.wait()


class House:
    """A model service, and what it stands on."""

    def __init__(self, service: ModelService, catalog: ModelCatalog, folder: Path) -> None:
        self.service = service
        self.catalog = catalog
        self.folder = folder
        self.events = RecordingSink()
        self.clock = SteppedClock()

    def file(self, name: str = "tiny.gguf") -> str:
        """Write a real model, and return its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(TINY)
        return str(path)

    async def names(self) -> list[str]:
        """Return what is listed."""
        return [model.name for model in await self.service.list()]


@asynccontextmanager
async def open_house(folder: Path, *declarations: Declaration) -> AsyncIterator[House]:
    """Open the models of ``folder``, as one process does."""
    async with (
        open_sqlite_catalog(make_context(folder)) as catalog,
        open_file_source(make_context(folder)) as source,
    ):
        events, clock = RecordingSink(), SteppedClock()
        service = ModelService(
            catalog, source, clock=clock, events=events, declarations=declarations
        )
        house = House(service, catalog, folder)
        house.events, house.clock = events, clock
        yield house


async def test_added_model_is_read_named_and_announced(tmp_path: Path) -> None:
    """Its facts come from its file, its name from the file's unless one is given."""
    async with open_house(tmp_path) as house:
        model = await house.service.add(house.file(), aliases=["t", "u", "t"])
        assert (model.name, model.aliases, model.origin.kind) == ("tiny", ("t", "u"), "file")
        assert model.facts.architecture == "llama"
        assert model.size_bytes == len(TINY)
        other = await house.service.add(house.file("b.gguf"), name="other")
        assert await house.names() == ["other", "tiny"]
        added = [(event.name, event.model_id) for event in house.events.events]  # type: ignore[attr-defined]
        assert added == [("model.added", model.id), ("model.added", other.id)]
        for name in ("tiny", "t", "u"):
            assert (await house.service.resolve(name)).model == model
        removed = await house.service.remove("u")
        assert removed == model
        assert await house.names() == ["other"]
        assert house.events.events[-1].name == "model.removed"
        assert Path(house.file()).exists()


async def test_path_may_be_relative_and_have_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a text and as a path; what is kept is absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_house(tmp_path) as house:
        house.file()
        for number, reference in enumerate(
            ("tiny.gguf", "~/tiny.gguf", Path("tiny.gguf"), Path("~/tiny.gguf"))
        ):
            model = await house.service.add(reference, name=f"m{number}")
            assert model.path == tmp_path / "tiny.gguf"


class Zoo(ModelSource):
    """A source that has whatever it is asked for."""

    async def locate(self, reference: str) -> LocatedModel:
        """Have it."""
        return LocatedModel(
            paths=(Path("/zoo", reference),),
            size_bytes=1,
            facts=ModelFacts(),
            suggested_name="animal",
        )


@asynccontextmanager
async def open_zoo(name: str) -> AsyncIterator[ModelSource]:
    """Hold the zoo."""
    assert name in NAMES
    yield Zoo()


#: What is registered: not all of it can be meant by a reference.
NAMES = ("zoo", "file", "config", "C")


@asynccontextmanager
async def open_sources(folder: Path) -> AsyncIterator[ModelSources]:
    """Hold a source of files and the zoo, as one."""
    async with open_file_source(make_context(folder)) as files:
        yield ModelSources(files, names=lambda: NAMES, open_source=open_zoo)


@pytest.mark.parametrize(
    ("reference", "name", "rest"),
    [
        ("zoo:tiny", "zoo", "tiny"),
        ("zoo:", "zoo", ""),
        ("zoo:a:b\n", "zoo", "a:b\n"),
        ("./zoo:tiny", "file", "./zoo:tiny"),
        ("/zoo:tiny", "file", "/zoo:tiny"),
        ("ZOO:tiny", "file", "ZOO:tiny"),
        ("zoo", "file", "zoo"),
        ("C:\\m.gguf", "file", "C:\\m.gguf"),
        ("file:x", "file", "file:x"),
        ("config:x", "file", "config:x"),
        (reference_of(Path("zoo:tiny")), "file", "./zoo:tiny"),
        (reference_of(Path("a/b:c")), "file", "a/b:c"),
    ],
)
async def test_reference_means_a_source_or_a_file(
    tmp_path: Path, reference: str, name: str, rest: str
) -> None:
    """Only a name that is known is one; a drive of Windows never is."""
    async with open_sources(tmp_path) as sources:
        assert sources.split(reference) == (name, rest)


async def test_model_keeps_the_source_that_located_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a file whose name looks like a source's can be had all the same."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo:tiny").write_bytes(TINY)
    async with open_house(tmp_path) as house, open_sources(tmp_path) as sources:
        house.service._sources = sources
        located = await house.service.add("zoo:tiny")
        assert (located.path, located.origin.kind) == (Path("/zoo/tiny"), "zoo")
        for number, reference in enumerate(("./zoo:tiny", Path("zoo:tiny"))):
            model = await house.service.add(reference, name=f"m{number}")
            assert (model.path, model.origin.kind) == (tmp_path / "zoo:tiny", "file")
        assert (await house.service.remove("animal")).origin.kind == "zoo"


class MistakenZoo(Zoo):
    """A source that gives what no port promises."""

    async def locate(self, reference: str) -> LocatedModel:
        """Give its path alone."""
        return Path("/zoo", reference)  # type: ignore[return-value]


async def test_call_of_a_named_source_is_held_by_who_blames_it(tmp_path: Path) -> None:
    """That of files is not; what is no model is its fault, as an error is."""
    blamed: list[tuple[str, str]] = []

    @contextmanager
    def blame(name: str) -> Iterator[None]:
        try:
            yield
        except TypeError as error:
            blamed.append((name, str(error)))
            raise

    @asynccontextmanager
    async def open_mistaken(_name: str) -> AsyncIterator[ModelSource]:
        yield MistakenZoo()

    async with open_file_source(make_context(tmp_path)) as files:
        sources = ModelSources(files, names=lambda: NAMES, open_source=open_mistaken, blame=blame)
        with pytest.raises(TypeError):
            await sources.locate("zoo:tiny")
        with pytest.raises(ModelFileMissing):
            await sources.locate("tiny.gguf")
    ((name, reason),) = blamed
    assert (name, "which is no LocatedModel" in reason) == ("zoo", True)


async def test_file_that_may_have_been_meant_for_a_source_is_told_with_the_known_ones(
    tmp_path: Path,
) -> None:
    """Where there are any beside files; a path with a slash was meant for none."""
    async with open_sources(tmp_path) as sources:
        with pytest.raises(ModelFileMissing) as caught:
            await sources.locate("zo:tiny")
        assert str(caught.value) == (
            "zo:tiny: no such file, and no such source; known sources: zoo"
        )
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        for reference in ("./zo:tiny", "tiny.gguf", "D:tiny"):
            with pytest.raises(ModelFileMissing) as missing:
                await sources.locate(reference)
            assert missing.value.known_sources == ()
    async with open_file_source(make_context(tmp_path)) as files:
        with pytest.raises(ModelFileMissing) as missing:
            await ModelSources(files).locate("zo:tiny")
        assert missing.value.known_sources == ()


async def test_unknown_name_is_told_with_close_ones(tmp_path: Path) -> None:
    """And peeking, which asks nobody, says only that it does not know."""
    async with open_house(tmp_path) as house:
        await house.service.add(house.file(), name="qwen2.5-7b")
        with pytest.raises(ModelNotFound) as caught:
            await house.service.resolve("qwen2.5-7")
        assert caught.value.close_names == ("qwen2.5-7b",)
        assert house.service.peek("qwen2.5-7") is None
        with pytest.raises(ModelNotFound):
            await house.service.remove("nobody")


async def test_stem_of_several_files_is_ambiguous(tmp_path: Path) -> None:
    """The error lists the names that would do."""
    async with open_house(tmp_path) as house:
        await house.service.add(house.file("a/same.gguf"), name="one")
        await house.service.add(house.file("b/same.gguf"), name="two")
        with pytest.raises(AmbiguousModel) as caught:
            await house.service.resolve("same")
        assert caught.value.candidates == ("one", "two")
        assert house.service.peek("same") is None


async def test_bad_additions_leave_nothing(tmp_path: Path) -> None:
    """Neither a row nor an event."""
    (tmp_path / "text.gguf").write_text("no model")
    async with open_house(tmp_path) as house:
        for reference, options, error in [
            (str(tmp_path / "missing.gguf"), {}, ModelFileMissing),
            (str(tmp_path / "text.gguf"), {}, InvalidModelFile),
            (house.file(), {"name": "../up"}, InvalidValue),
            (house.file(), {"aliases": [""]}, InvalidValue),
        ]:
            with pytest.raises(error):
                await house.service.add(reference, **options)  # type: ignore[arg-type]
        assert await house.names() == []
        assert house.events.events == []


def declared(folder: Path, name: str = "alpha", **more: object) -> Declaration:
    """Return a declaration of a file that may not be there."""
    return Declaration(name=name, path=folder / f"{name}.gguf", **more)  # type: ignore[arg-type]


async def test_declared_model_is_there_with_what_is_declared(tmp_path: Path) -> None:
    """Facts from its file where it can be read; an engine of the user's may read others."""
    defaults = ModelDefaults(server={"context_size": 64}, pinned=True)
    alpha = declared(tmp_path, aliases=("a",), defaults=defaults)
    (tmp_path / "alpha.gguf").write_bytes(TINY)
    (tmp_path / "strange.gguf").write_bytes(b"ONNX")
    async with open_house(
        tmp_path, alpha, declared(tmp_path, "strange"), declared(tmp_path, "later")
    ) as house:
        assert await house.names() == ["alpha", "later", "strange"]
        resolved = await house.service.resolve("a")
        assert resolved.model.name == "alpha"
        assert (resolved.model.defaults, resolved.model.origin.kind) == (defaults, "config")
        assert resolved.model.facts.architecture == "llama"
        strange = (await house.service.resolve("strange")).model
        assert (strange.size_bytes, strange.facts.architecture) == (4, None)
        assert (await house.service.resolve("later")).model.size_bytes == 0
        with pytest.raises(InvalidRequest, match="configuration file"):
            await house.service.remove("a")
        assert await house.catalog.list() == [], "only its name and id are stored"


async def test_declared_model_keeps_its_id_from_one_start_to_the_next(tmp_path: Path) -> None:
    """Whatever was declared besides, in whatever order."""
    async with open_house(tmp_path, declared(tmp_path, "b")) as house:
        first = (await house.service.resolve("b")).model.id
    async with open_house(tmp_path, declared(tmp_path, "a"), declared(tmp_path, "b")) as house:
        assert (await house.service.resolve("b")).model.id == first
        assert (await house.service.resolve("a")).model.id != first


async def test_declared_model_wins_over_the_row_of_its_name(tmp_path: Path) -> None:
    """The row comes back when the declaration goes."""
    async with open_house(tmp_path) as house:
        row = await house.service.add(house.file(), name="alpha")
    async with open_house(tmp_path, declared(tmp_path)) as house:
        (model,) = await house.service.list()
        assert (model.id, model.path) == (row.id, tmp_path / "alpha.gguf")
    async with open_house(tmp_path) as house:
        assert await house.service.list() == [row]


async def test_alias_that_is_declared_wins_over_the_rows(tmp_path: Path) -> None:
    """The file wins; the row answers to its own name."""
    async with open_house(tmp_path) as house:
        await house.service.add(house.file(), name="zed", aliases=["a"])
    async with open_house(tmp_path, declared(tmp_path, aliases=("a",))) as house:
        assert (await house.service.resolve("a")).model.name == "alpha"
        assert (await house.service.resolve("zed")).model.name == "zed"


@pytest.mark.parametrize("taken", ["alpha", "al"])
async def test_name_that_the_configuration_declares_is_taken(tmp_path: Path, taken: str) -> None:
    """As a name and as an alias: what the file says would hide it, or be hidden."""
    async with open_house(tmp_path, declared(tmp_path, aliases=("al",))) as house:
        for options in ({"name": taken}, {"name": "free", "aliases": [taken]}):
            with pytest.raises(ModelExists, match="declared in the configuration"):
                await house.service.add(house.file(), **options)  # type: ignore[arg-type]
        assert await house.names() == ["alpha"]


async def test_taken_name_is_refused_with_its_holder(tmp_path: Path) -> None:
    """Also as an alias."""
    async with open_house(tmp_path) as house:
        await house.service.add(house.file(), name="one", aliases=["uno"])
        for options in ({"name": "one"}, {"name": "uno"}, {"name": "x", "aliases": ["one"]}):
            with pytest.raises(ModelExists) as caught:
                await house.service.add(house.file(), **options)  # type: ignore[arg-type]
            assert caught.value.holder == "one"


async def test_change_of_another_process_is_seen(tmp_path: Path) -> None:
    """At once by who asks for the model, and before long by who only peeks."""
    async with open_house(tmp_path) as ours, open_house(tmp_path) as theirs:
        assert await ours.names() == []
        await theirs.service.add(theirs.file(), name="new")
        assert ours.service.peek("new") is None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ours.service.watch)
            await ours.clock.step()
            found = ours.service.peek("new")
            assert found is not None
            assert found.model.name == "new"
            await theirs.service.remove("new")
            await ours.clock.step()
            assert ours.service.peek("new") is None
            tasks.cancel_scope.cancel()
        await theirs.service.add(theirs.file(), name="newer")
        assert (await ours.service.resolve("newer")).model.name == "newer"


async def test_watch_outlives_a_catalog_that_fails(tmp_path: Path) -> None:
    """What cannot be read now is looked at again."""
    async with open_house(tmp_path) as house, open_house(tmp_path) as theirs:
        await house.service.refresh()
        real = house.catalog.revision

        async def broken() -> int:
            raise DatabaseCorrupt(tmp_path, "for a moment")

        watched = Flaky(house.catalog)
        house.service._catalog = watched
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.service.watch)
            await theirs.service.add(theirs.file(), name="new")
            watched.revision = broken  # type: ignore[method-assign]
            await house.clock.step()
            assert house.service.peek("new") is None
            watched.revision = real  # type: ignore[method-assign]
            await house.clock.step()
            assert house.service.peek("new") is not None
            tasks.cancel_scope.cancel()


class Flaky:
    """A catalog of which a part can be replaced."""

    def __init__(self, inner: ModelCatalog) -> None:
        self.revision = inner.revision
        self.list = inner.list


async def test_other_declarations_hold_when_they_are_taken_up(tmp_path: Path) -> None:
    """Until then nothing has changed; what is declared as before is the very same model."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TINY)
    kept, gone = Declaration(name="kept", path=path), Declaration(name="gone", path=path)
    async with open_house(tmp_path, kept, gone) as house:
        before = {model.name: model for model in await house.service.list()}
        other = Declaration(name="other", path=path, aliases=("o",))
        declared = await house.service.declare([kept, other])
        assert sorted(house.service.known) == ["gone", "kept"]
        house.service.take_up(declared)
        assert house.service.peek("gone") is None
        found = house.service.peek("o")
        assert found is not None
        assert found.model.name == "other"
        assert await house.names() == ["kept", "other"]
        assert (await house.service.resolve("kept")).model is before["kept"]
        with pytest.raises(ModelNotFound):
            await house.service.resolve("gone")


async def test_row_of_a_name_that_is_no_longer_declared_is_back_with_the_same_id(
    tmp_path: Path,
) -> None:
    """It was there all the time."""
    async with open_house(tmp_path) as plain:
        row = await plain.service.add(plain.file(), name="m")
    async with open_house(tmp_path, Declaration(name="m", path=tmp_path / "m.gguf")) as house:
        assert (await house.service.resolve("m")).model.origin.kind == "config"
        house.service.take_up(await house.service.declare([]))
        found = (await house.service.resolve("m")).model
        assert (found.id, found.origin.kind) == (row.id, "file")


async def test_declared_file_that_comes_later_is_read_by_the_next_declaration(
    tmp_path: Path,
) -> None:
    """Though nothing else has changed."""
    item = Declaration(name="m", path=tmp_path / "m.gguf")
    async with open_house(tmp_path, item) as house:
        assert (await house.service.resolve("m")).model.size_bytes == 0
        house.file("m.gguf")
        house.service.take_up(await house.service.declare([item]))
        assert (await house.service.resolve("m")).model.size_bytes == len(TINY)
