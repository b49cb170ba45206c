"""Every promise of ``ModelHub``, as a test that its adapters inherit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import pytest

from gglib.domain.hub import HubRevision
from gglib.errors import RepositoryNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.model_hub import ModelHub
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract

__all__ = ["ModelHubContract", "OpenModelHub"]

#: A hub adapter's factory.
OpenModelHub: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ModelHub]]


class ModelHubContract(Contract):
    """What every hub of models tells.

    Subclass it under a name that begins with ``Test``, and override ``open_hub`` and ``known``:
    a repository that the hub has, at its main branch, with one GGUF file at least.
    """

    @pytest.fixture
    def open_hub(self) -> OpenModelHub:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_hub: return your factory")

    @pytest.fixture
    def known(self) -> HubRevision:
        """Return what the hub has of one repository."""
        raise NotImplementedError("override the fixture known: return what the hub has")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def hub(self, open_hub: OpenModelHub, context: AdapterContext) -> AsyncIterator[ModelHub]:
        """Open the hub."""
        async with open_hub(context) as hub:
            yield hub

    async def test_revision_tells_commit_and_model_files(
        self, hub: ModelHub, known: HubRevision
    ) -> None:
        """Of the main branch, where none is named."""
        assert isinstance(hub, ModelHub), "bootstrap takes subclasses of ModelHub only"
        found = await hub.revision(known.repository)
        assert found.commit == known.commit, "revision() must tell the commit"
        files = sorted(found.files, key=lambda file: file.path)
        assert files == sorted(known.files, key=lambda file: file.path), (
            "revision() must tell every GGUF file, and no other, with size and SHA-256"
        )

    async def test_commit_is_a_revision(self, hub: ModelHub, known: HubRevision) -> None:
        """What was pulled can be asked for again."""
        found = await hub.revision(known.repository, known.commit)
        assert found.commit == known.commit, "revision() must take a commit"

    @pytest.mark.parametrize("missing", ["repository", "revision"])
    async def test_what_is_not_there_is_an_error_of_the_port(
        self, hub: ModelHub, known: HubRevision, missing: str
    ) -> None:
        """``RepositoryNotFound``, for both."""
        repository, revision = known.repository, None
        if missing == "repository":
            repository += "-that-is-not-there"
        else:
            revision = "no-such-branch"
        with pytest.raises(RepositoryNotFound):
            await hub.revision(repository, revision)

    async def test_search_finds_a_repository_by_its_name(
        self, hub: ModelHub, known: HubRevision
    ) -> None:
        """No more are returned than are asked for."""
        found = await hub.search(known.repository.partition("/")[2], limit=5)
        assert known.repository in [each.repository for each in found], "search() must find it"
        assert len(await hub.search("", limit=1)) <= 1, "search() must keep to its limit"

    async def test_location_is_an_address_of_that_commit(
        self, hub: ModelHub, known: HubRevision
    ) -> None:
        """Each file has its own; secrets are in headers, which are not shown."""
        places = [hub.location(known.repository, known.commit, file.path) for file in known.files]
        assert len({place.url for place in places}) == len(places), "each file has its own address"
        for place in places:
            parts = urlsplit(place.url)
            assert parts.scheme in {"http", "https"}, "location() must be an http address"
            assert known.commit in parts.path, "location() must name the commit"
            for value in place.headers.values():
                assert value not in repr(place), "what is sent to the hub must not be shown"
