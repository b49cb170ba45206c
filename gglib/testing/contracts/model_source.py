"""What every model source promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from gglib.domain.model import Model, ModelFacts, check_alias
from gglib.errors import InvalidModelFile, ModelError, ModelFileMissing
from gglib.ports.context import AdapterContext
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import CANCEL_AFTER, Contract, at_once, cancelled_after

__all__ = ["KnownModel", "ModelSourceContract", "OpenSource"]

#: A model source adapter's factory.
OpenSource: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ModelSource]]


@attrs.frozen(kw_only=True)
class KnownModel:
    """A model that the source finds, and what is known of it beforehand."""

    reference: str
    size_bytes: int
    """Of all its files together."""
    shards: int = 1
    facts: ModelFacts | None = None
    """What it says of itself; ``None`` = not compared."""


class ModelSourceContract(Contract):
    """What every model source keeps.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    first three fixtures::

        class TestMySource(ModelSourceContract):
            @pytest.fixture
            def open_source(self):
                return open_my_source

            @pytest.fixture
            def a_model(self):
                return KnownModel(reference="/models/small.gguf", size_bytes=1_234)

            @pytest.fixture
            def missing_reference(self):
                return "/models/gone.gguf"

    Override the others too where your source has such models.
    """

    references_are_paths: bool = True
    """Whether the path of a file or folder is a reference, as it is for files."""

    @pytest.fixture
    def open_source(self) -> OpenSource:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_source: return your factory")

    @pytest.fixture
    def a_model(self) -> KnownModel:
        """Return a model that the source finds."""
        raise NotImplementedError("override the fixture a_model: return a KnownModel")

    @pytest.fixture
    def missing_reference(self) -> str:
        """Return a reference to nothing."""
        raise NotImplementedError("override the fixture missing_reference: name what is not there")

    @pytest.fixture
    def a_sharded_model(self) -> KnownModel | None:
        """Return a model in several files; ``None`` = this source has none."""
        return None

    @pytest.fixture
    def missing_shard(self) -> str | None:
        """Return a reference to a model that lacks a shard; ``None`` = this source has none."""
        return None

    @pytest.fixture
    def not_a_model(self) -> str | None:
        """Return a reference to something that is no model; ``None`` = this source has none."""
        return None

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def source(
        self, open_source: OpenSource, context: AdapterContext
    ) -> AsyncIterator[ModelSource]:
        """Open the source."""
        async with open_source(context) as source:
            yield source

    def _need_paths(self) -> None:
        if not self.references_are_paths:
            pytest.skip("this source declares references_are_paths = False")

    async def test_opened_source_is_of_the_port(self, source: ModelSource) -> None:
        """The factory's context manager gives a ``ModelSource``."""
        assert isinstance(source, ModelSource), "bootstrap takes subclasses of ModelSource only"

    # What is found

    async def test_model_is_located(self, source: ModelSource, a_model: KnownModel) -> None:
        """Its files by absolute paths, its size, what it says of itself, and a name for it."""
        _check(await source.locate(a_model.reference), a_model)

    async def test_located_model_can_enter_a_catalog(
        self, source: ModelSource, a_model: KnownModel
    ) -> None:
        """The suggested name and everything else is valid in a ``Model``."""
        found = await source.locate(a_model.reference)

        name = check_alias(found.suggested_name)
        model = Model(
            id=0, name=name, paths=found.paths, size_bytes=found.size_bytes, facts=found.facts
        )
        assert model.path == found.paths[0], "the first path must be what an engine is given"

    async def test_located_path_leads_to_the_same_model(
        self, source: ModelSource, a_model: KnownModel
    ) -> None:
        """What is kept in a catalog is found again by its path."""
        self._need_paths()
        found = await source.locate(a_model.reference)

        again = await source.locate(str(found.paths[0]))

        assert again.paths == found.paths, "a located path must lead to the same files"

    async def test_locating_again_finds_the_same(
        self, source: ModelSource, a_model: KnownModel
    ) -> None:
        """Nothing is used up, one after the other or ten at once."""
        first = await source.locate(a_model.reference)
        found: list[LocatedModel] = []

        async def locate(_: int) -> None:
            found.append(await source.locate(a_model.reference))

        await at_once(locate)

        assert found == [first] * 10, (
            "locate() must find the same as long as the files are the same"
        )

    async def test_files_are_not_changed(self, source: ModelSource, a_model: KnownModel) -> None:
        """Locating reads; sizes and times of the files stay as they were."""
        paths = (await source.locate(a_model.reference)).paths
        before = [_stamp(path) for path in paths]

        await source.locate(a_model.reference)

        assert [_stamp(path) for path in paths] == before, "locate() must not change files"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_source_works_after_a_cancelled_call(
        self, source: ModelSource, a_model: KnownModel, steps: int
    ) -> None:
        """A call that was given up leaves nothing behind."""
        await cancelled_after(steps, lambda: source.locate(a_model.reference))

        _check(await source.locate(a_model.reference), a_model)

    # Shards

    async def test_sharded_model_is_located_whole(
        self, source: ModelSource, a_sharded_model: KnownModel | None
    ) -> None:
        """Every shard, the first one first, whichever shard is named."""
        if a_sharded_model is None:
            pytest.skip("a_sharded_model is None: this source has no models in several files")
        found = await source.locate(a_sharded_model.reference)
        _check(found, a_sharded_model)
        for path in found.paths:
            by_shard = await source.locate(str(path))
            assert by_shard == found, "every shard must lead to the whole model, first shard first"

    async def test_missing_shard_is_named(
        self, source: ModelSource, missing_shard: str | None
    ) -> None:
        """Half a model is none."""
        if missing_shard is None:
            pytest.skip("missing_shard is None: this source has no models in several files")
        with pytest.raises(ModelFileMissing) as caught:
            await source.locate(missing_shard)

        assert isinstance(caught.value.path, Path), "ModelFileMissing.path must be the lost shard"

    # What is not a model

    async def test_missing_model_is_reported(
        self, source: ModelSource, missing_reference: str
    ) -> None:
        """The error says which file was looked for, every time."""
        for _ in range(2):
            with pytest.raises(ModelFileMissing) as caught:
                await source.locate(missing_reference)
            assert isinstance(caught.value.path, Path), "ModelFileMissing.path must be a path"

    async def test_directory_is_no_model(self, source: ModelSource, tmp_path: Path) -> None:
        """A folder is named, and why it is none."""
        self._need_paths()
        folder = tmp_path / "a folder.gguf"
        folder.mkdir()

        with pytest.raises(InvalidModelFile) as caught:
            await source.locate(str(folder))

        assert caught.value.reason, "InvalidModelFile.reason must say why"

    async def test_what_is_no_model_is_refused(
        self, source: ModelSource, not_a_model: str | None
    ) -> None:
        """The file is named, and why it is none."""
        if not_a_model is None:
            pytest.skip("not_a_model is None: this source finds nothing but models")
        with pytest.raises(InvalidModelFile) as caught:
            await source.locate(not_a_model)

        assert isinstance(caught.value.path, Path), "InvalidModelFile.path must be the file"
        assert caught.value.reason, "InvalidModelFile.reason must say why"

    @pytest.mark.parametrize(
        "reference", ["", " ", "\0", "a\0b", "/", "..", "~", "~no-such-user", "\udcff", "x" * 5000]
    )
    async def test_strange_reference_is_an_error_of_the_port(
        self, source: ModelSource, reference: str
    ) -> None:
        """Whatever a user types, the error is about a model's file."""
        with pytest.raises(ModelError) as caught:
            await source.locate(reference)

        assert isinstance(caught.value, ModelFileMissing | InvalidModelFile), (
            f"locate({reference[:20]!r}) must raise ModelFileMissing or InvalidModelFile"
        )


def _check(found: LocatedModel, known: KnownModel) -> None:
    assert isinstance(found, LocatedModel), "locate() must return a LocatedModel"
    assert found.paths, "a located model has at least one file"
    assert all(path.is_absolute() for path in found.paths), "every path must be absolute"
    assert len(set(found.paths)) == known.shards, "paths must have every shard, each once"
    assert found.size_bytes == known.size_bytes, "size_bytes must count all files"
    assert len(found.marks) in (0, known.shards), "marks must be one for each path, or none"
    assert isinstance(found.facts, ModelFacts), "facts must be ModelFacts"
    if known.facts is not None:
        assert found.facts == known.facts, "facts must be what the model says of itself"


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # It is not on this machine.
    return status.st_size, status.st_mtime_ns
