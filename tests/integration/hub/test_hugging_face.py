"""The hub's API is read as the hub's own library reads it, from one and the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio.to_thread
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from support.hub import Fault, LocalHub, local_hub
from support.pulled import model_bytes

from gglib.bootstrap import SystemClock
from gglib.errors import HubUnavailable, RepositoryNotFound
from gglib.ports.clock import Clock
from gglib_adapters.hub.hugging_face import HuggingFaceHub

pytestmark = pytest.mark.anyio

FILES = {
    "README.md": b"# tiny",
    "tiny-Q4_K_M.gguf": model_bytes(seed=1),
    "Q8 0/tiny #1-Q8_0.gguf": model_bytes(seed=2),
}


@pytest.fixture
def local() -> Iterator[LocalHub]:
    """Run a hub with one repository, of two branches."""
    with local_hub() as hub:
        repository = hub.add("acme/tiny-GGUF", FILES, downloads=7)
        repository.commit({"old.gguf": b"old"}, branch="v1/beta")
        yield hub


@pytest.fixture
async def ours(local: LocalHub) -> AsyncIterator[HuggingFaceHub]:
    """Return our reader of it."""
    hub = HuggingFaceHub(local.endpoint, None, SystemClock())
    yield hub
    await hub.aclose()


@pytest.mark.parametrize("revision", [None, "main", "v1/beta"])
async def test_revision_is_what_the_hubs_library_says(
    local: LocalHub, ours: HuggingFaceHub, revision: str | None
) -> None:
    """Commit, files, sizes and SHA-256."""
    theirs = HfApi(local.endpoint, token=False)

    info = await anyio.to_thread.run_sync(
        lambda: theirs.model_info("acme/tiny-GGUF", revision=revision, files_metadata=True)
    )
    found = await ours.revision("acme/tiny-GGUF", revision)

    assert found.commit == info.sha
    assert [(file.path, file.size_bytes, file.sha256) for file in found.files] == [
        (each.rfilename, each.size, each.lfs.sha256) for each in info.siblings or [] if each.lfs
    ]


async def test_search_is_what_the_hubs_library_says(local: LocalHub, ours: HuggingFaceHub) -> None:
    """The same repositories in the same order."""
    local.add("other/TINY", {}, downloads=9)
    theirs = HfApi(local.endpoint, token=False)

    listed = await anyio.to_thread.run_sync(
        lambda: list(theirs.list_models(search="tiny", filter="gguf", sort="downloads", limit=5))
    )
    found = await ours.search("tiny", limit=5)

    assert [(each.repository, each.downloads) for each in found] == [
        (each.id, each.downloads) for each in listed
    ]


async def test_file_is_where_the_hubs_library_fetches_it(
    local: LocalHub, ours: HuggingFaceHub, tmp_path: Path
) -> None:
    """Also with a name that an address must quote; the library takes what our hub sends."""
    theirs = HfApi(local.endpoint, token=False)
    commit = local.repositories["acme/tiny-GGUF"].branches["main"]
    path = "Q8 0/tiny #1-Q8_0.gguf"

    fetched = await anyio.to_thread.run_sync(
        lambda: theirs.hf_hub_download("acme/tiny-GGUF", path, local_dir=tmp_path, revision=commit)
    )

    assert Path(fetched).read_bytes() == FILES[path]
    asked = [each.path for each in local.of_server("hub") if "/resolve/" in each.path]
    assert ours.location("acme/tiny-GGUF", commit, path).url == local.endpoint + asked[0]


async def test_missing_repository_is_one_for_both(local: LocalHub, ours: HuggingFaceHub) -> None:
    """The hub answers 401 to who has no token."""
    theirs = HfApi(local.endpoint, token=False)
    with pytest.raises(RepositoryNotFoundError):
        await anyio.to_thread.run_sync(theirs.model_info, "acme/none")
    with pytest.raises(RepositoryNotFound, match="acme/tiny-GGUF"):
        await ours.revision("acme/tiny")


class RestingClock(Clock):
    """Sleeps at once, and remembers how long it should have."""

    def __init__(self) -> None:
        self.rests: list[float] = []

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)


async def test_busy_hub_is_left_alone_as_long_as_it_asks(local: LocalHub) -> None:
    """Else a second, then two; after three attempts it is told of."""
    clock = RestingClock()
    hub = HuggingFaceHub(local.endpoint, None, clock)
    local.api_faults.extend([Fault(429, {"retry-after": "7"}), Fault(500)])
    assert (await hub.revision("acme/tiny-GGUF")).files
    assert clock.rests == [7, 2]
    local.api_faults.extend([Fault(503)] * 3)
    with pytest.raises(HubUnavailable, match="status 503"):
        await hub.revision("acme/tiny-GGUF")
    assert len(local.of_server("hub")) == 6
    await hub.aclose()


async def test_hub_that_does_not_answer_is_tried_again() -> None:
    """It may have been the network."""
    clock = RestingClock()
    hub = HuggingFaceHub("http://127.0.0.1:9", None, clock)
    with pytest.raises(HubUnavailable, match="does not answer"):
        await hub.search("tiny")
    assert clock.rests == [0.5, 1.0]
    await hub.aclose()
