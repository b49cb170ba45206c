"""Files over HTTP, from a real server that answers well, badly, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.file_server import (
    Act,
    FileServer,
    chunked,
    claiming,
    cut_after,
    file_server,
    ignoring_conditions,
    ignoring_ranges,
    redirect,
    status,
)

from gglib.errors import (
    DownloadFailed,
    DownloadNotFound,
    DownloadRefused,
    HashMismatch,
    InvalidValue,
    NoSpace,
)
from gglib.ports.clock import Clock
from gglib.ports.downloader import DownloadProgress, partial_of
from gglib_adapters.downloads import HttpDownloader
from gglib_adapters.downloads.partial import PartialFile

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2

pytestmark = pytest.mark.anyio


class HastyClock(Clock):
    """Never waits, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def anyio_backend() -> str:
    """Run where commands do; what depends on the event loop says so."""
    return "asyncio"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as files:
        files.put("/model.gguf", CONTENT)
        yield files


@pytest.fixture
def clock() -> HastyClock:
    return HastyClock()


@pytest.fixture
async def downloader(clock: HastyClock) -> AsyncIterator[HttpDownloader]:
    made = HttpDownloader(clock=clock, silence_timeout_s=5)
    yield made
    await made.aclose()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def left_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_file_is_fetched_whole_and_nothing_else_is_left(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """With its hash, its size, and progress up to the end."""
    seen: list[DownloadProgress] = []
    got = await downloader.fetch(
        f"{server.address}/model.gguf", target, sha256=SHA256.upper(), on_progress=seen.append
    )
    assert target.read_bytes() == CONTENT
    assert (got.path, got.size_bytes, got.sha256) == (target, len(CONTENT), SHA256)
    assert got.etag == server.etags["/model.gguf"]
    assert left_in(target.parent) == ["model.gguf"]
    assert target.stat().st_mode & 0o777 == 0o600
    done = [progress.done_bytes for progress in seen]
    assert done == sorted(done)
    assert seen[-1].done_bytes == seen[-1].total_bytes == len(CONTENT)


async def test_hash_is_told_where_none_was_asked_for(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Who fetches for the first time can keep it."""
    got = await downloader.fetch(f"{server.address}/model.gguf", target)
    assert got.sha256 == SHA256


@pytest.mark.parametrize(
    "act", [cut_after(1000), cut_after(0), status(500), status(503), status(408)]
)
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_interruption_is_waited_out(
    server: FileServer, downloader: HttpDownloader, target: Path, clock: HastyClock, act: Act
) -> None:
    """And nothing that came is asked for again."""
    server.then("/model.gguf", cut_after(HALF), act)
    got = await downloader.fetch(f"{server.address}/model.gguf", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert got.kept_bytes == 0
    assert len(clock.slept) == 2
    firsts = [request.first_byte for request in server.requests]
    assert firsts[1] == HALF, "all that came was kept"


async def test_server_that_asks_to_wait_is_left_alone_so_long(
    server: FileServer, downloader: HttpDownloader, target: Path, clock: HastyClock
) -> None:
    """429 with Retry-After, in seconds or as a date that has passed."""
    server.then(
        "/model.gguf",
        status(429, retry_after="17"),
        status(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        status(429, retry_after="soon"),
    )
    await downloader.fetch(f"{server.address}/model.gguf", target)
    assert clock.slept == [17.0, 1.0, 2.0]


async def test_server_that_asks_for_too_much_patience_is_an_error(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """An hour is for the user to wait."""
    server.then("/model.gguf", status(429, retry_after="3600"))
    with pytest.raises(DownloadFailed, match=r"429, and asks to be left alone for 3600 s"):
        await downloader.fetch(f"{server.address}/model.gguf", target)


async def test_server_that_never_gets_anywhere_is_given_up(
    server: FileServer, downloader: HttpDownloader, target: Path, clock: HastyClock
) -> None:
    """After so many tries in a row, with what came kept for the next call."""
    server.then("/model.gguf", cut_after(HALF), *[status(502)] * 20)
    url = f"{server.address}/model.gguf"
    with pytest.raises(DownloadFailed, match=r"the server answers 502 \(6 times in a row\)"):
        await downloader.fetch(url, target, sha256=SHA256)
    assert sorted(clock.slept) == clock.slept
    assert partial_of(target).stat().st_size == HALF
    server.acts.clear()
    got = await downloader.fetch(url, target, sha256=SHA256)
    assert got.kept_bytes == HALF
    assert server.requests[-1].first_byte == HALF
    assert left_in(target.parent) == ["model.gguf"]


async def test_nobody_there_is_an_error_that_names_the_address(
    downloader: HttpDownloader, target: Path, clock: HastyClock
) -> None:
    """Soon, and nothing is left behind."""
    with pytest.raises(DownloadFailed, match=r"http://127.0.0.1:1/file could not be fetched"):
        await downloader.fetch("http://127.0.0.1:1/file", target)
    assert len(clock.slept) == 2
    assert left_in(target.parent) == []


@pytest.mark.parametrize(
    ("code", "error"),
    [(404, DownloadNotFound), (410, DownloadNotFound), (401, DownloadRefused)],
)
async def test_refusal_is_not_tried_again(
    server: FileServer,
    downloader: HttpDownloader,
    target: Path,
    code: int,
    error: type[Exception],
) -> None:
    """It would be refused again."""
    server.then("/model.gguf", status(code))
    with pytest.raises(error, match=r"/model\.gguf"):
        await downloader.fetch(f"{server.address}/model.gguf", target)
    assert len(server.requests) == 1
    assert left_in(target.parent) == []


async def test_wrong_hash_keeps_nothing(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Neither under its name nor to go on with; what was there before stays."""
    target.write_bytes(b"the old one")
    with pytest.raises(HashMismatch, match=SHA256):
        await downloader.fetch(f"{server.address}/model.gguf", target, sha256="ab" * 32)
    assert left_in(target.parent) == ["model.gguf"]
    assert target.read_bytes() == b"the old one"


async def test_damaged_beginning_is_fetched_anew(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """A loss of power leaves holes; the hash finds them, and the file comes nonetheless."""
    partial_of(target).write_bytes(bytes(HALF))
    got = await downloader.fetch(f"{server.address}/model.gguf", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert [request.first_byte for request in server.requests] == [HALF, 0]
    assert got.kept_bytes == 0


async def interrupted(
    server: FileServer, downloader: HttpDownloader, target: Path, sha256: str | None = None
) -> str:
    """Fetch the first half of the file, and return its URL."""
    url = f"{server.address}/model.gguf"
    server.then("/model.gguf", cut_after(HALF), *[status(500)] * 6)
    with pytest.raises(DownloadFailed):
        await downloader.fetch(url, target, sha256=sha256)
    server.acts.clear()
    server.requests.clear()
    return url


async def test_file_that_changed_is_fetched_anew(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Halves of two versions are no file."""
    url = await interrupted(server, downloader, target)
    new = os.urandom(len(CONTENT))
    server.put("/model.gguf", new)
    got = await downloader.fetch(url, target)
    assert target.read_bytes() == new
    assert got.kept_bytes == 0
    assert len(server.requests) == 1, "the server was asked on condition"


async def test_file_that_changed_under_a_server_without_conditions_is_fetched_anew(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """It answers 206 with another tag, or of another size."""
    for size in (len(CONTENT), len(CONTENT) - 10):
        url = await interrupted(server, downloader, target)
        new = os.urandom(size)
        server.put("/model.gguf", new)

        server.then("/model.gguf", ignoring_conditions)
        await downloader.fetch(url, target)
        assert target.read_bytes() == new
        server.put("/model.gguf", CONTENT)


async def test_file_without_a_version_is_never_gone_on_with(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Unless its hash tells in the end."""
    server.put("/model.gguf", CONTENT, etag=None)
    url = await interrupted(server, downloader, target)
    await downloader.fetch(url, target)
    assert [request.first_byte for request in server.requests] == [0]
    await interrupted(server, downloader, target, SHA256)
    await downloader.fetch(url, target, sha256=SHA256)
    assert [request.first_byte for request in server.requests] == [HALF]


async def test_weak_tag_is_no_version(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Two files that mean the same need not be the same bytes."""
    server.put("/model.gguf", CONTENT, etag='W/"1"')
    url = await interrupted(server, downloader, target)
    await downloader.fetch(url, target)
    assert [request.first_byte for request in server.requests] == [0]


async def test_other_file_of_the_same_name_is_not_gone_on_with(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """What is there is of another URL."""
    await interrupted(server, downloader, target)
    other = os.urandom(500_000)
    await downloader.fetch(server.put("/other", other), target)
    assert target.read_bytes() == other


async def test_same_file_from_a_mirror_is_gone_on_with(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """The hash says that it is the same."""
    await interrupted(server, downloader, target, SHA256)
    url = server.put("/mirror", CONTENT, etag='"else"')
    got = await downloader.fetch(url, target, sha256=SHA256)
    assert (got.kept_bytes, server.requests[-1].first_byte) == (HALF, HALF)


async def test_server_that_knows_no_ranges_sends_all_of_it(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """The file is whole, if not quicker."""
    url = await interrupted(server, downloader, target, SHA256)
    server.then("/model.gguf", ignoring_ranges)
    await downloader.fetch(url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


async def test_whole_file_that_was_not_in_its_place_is_put_there(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Killed between the last byte and the end: nothing is fetched."""
    partial_of(target).write_bytes(CONTENT)
    got = await downloader.fetch(f"{server.address}/model.gguf", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert got.kept_bytes == len(CONTENT)
    assert sum(request.first_byte < len(CONTENT) for request in server.requests) == 0


async def test_too_long_a_beginning_is_thrown_away(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """It cannot be of this file."""
    partial_of(target).write_bytes(CONTENT + b"and more")
    await downloader.fetch(
        f"{server.address}/model.gguf", target, sha256=SHA256, size_bytes=len(CONTENT)
    )
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"size_bytes": 5}, "the server has 3000000 bytes, expected 5"),
        ({"max_bytes": 1000}, "3000000 bytes are more than 1000"),
    ],
)
async def test_size_that_is_wrong_is_told_before_anything_is_fetched(
    server: FileServer,
    downloader: HttpDownloader,
    target: Path,
    bounds: dict[str, int],
    message: str,
) -> None:
    """By what the server says of it."""
    with pytest.raises(DownloadFailed, match=message):
        await downloader.fetch(f"{server.address}/model.gguf", target, **bounds)  # type: ignore[arg-type]
    assert left_in(target.parent) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("bounds", [{"size_bytes": 1_000_000}, {"max_bytes": 1_000_000}])
async def test_body_beyond_its_bounds_is_cut(
    server: FileServer, downloader: HttpDownloader, target: Path, bounds: dict[str, int]
) -> None:
    """Though the server said nothing of its length."""
    server.then("/model.gguf", chunked)
    with pytest.raises(DownloadFailed, match="more than 1000000 bytes"):
        await downloader.fetch(f"{server.address}/model.gguf", target, **bounds)  # type: ignore[arg-type]
    assert left_in(target.parent) == []


async def test_chunks_without_a_length_are_a_file(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """The last chunk says that it is whole."""
    server.then("/model.gguf", chunked)
    got = await downloader.fetch(f"{server.address}/model.gguf", target)
    assert got.sha256 == SHA256


async def test_longer_length_than_there_is_is_an_interruption(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """A server that lies about its size is found out, and asked again."""
    server.then("/model.gguf", claiming(len(CONTENT) + 5))
    await downloader.fetch(f"{server.address}/model.gguf", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


async def test_compressed_answer_is_refused(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Nobody asked for it: a little of it may be a great deal."""
    server.then("/model.gguf", status(200, content_encoding="gzip"))
    with pytest.raises(DownloadFailed, match="compressed"):
        await downloader.fetch(f"{server.address}/model.gguf", target)
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_headers_go_to_the_first_host_alone(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """A token for the hub is none of its storage's business."""
    with file_server() as storage:
        server.then("/gated", redirect("/here"))
        server.then("/here", redirect(f"{storage.address}/blob?signed=yes"))
        storage.put("/blob", CONTENT)
        headers = {"Authorization": "Bearer secret"}
        await downloader.fetch(f"{server.address}/gated", target, headers=headers)
        assert [request.headers.get("authorization") for request in server.requests] == [
            "Bearer secret"
        ] * 2
        assert "authorization" not in storage.requests[0].headers
    assert target.read_bytes() == CONTENT


async def test_partial_file_goes_on_behind_a_redirect(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Each try begins at the first address: signatures run out."""
    server.then("/gated", *[redirect("/model.gguf")] * 2)
    server.then("/model.gguf", cut_after(HALF))
    await downloader.fetch(f"{server.address}/gated", target)
    assert [request.first_byte for request in server.requests] == [0, 0, HALF, HALF]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/", "//:99999/"])
async def test_redirect_to_no_http_address_is_refused(
    server: FileServer, downloader: HttpDownloader, target: Path, place: str
) -> None:
    """A server has no say over this machine."""
    server.then("/model.gguf", redirect(place))
    with pytest.raises(DownloadRefused, match="no http address"):
        await downloader.fetch(f"{server.address}/model.gguf", target)


async def test_endless_redirects_are_refused(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Ten are enough for anybody."""
    server.then("/model.gguf", *[redirect("/model.gguf")] * 50)
    with pytest.raises(DownloadRefused, match="more than 10 redirects"):
        await downloader.fetch(f"{server.address}/model.gguf", target)


@pytest.mark.parametrize("url", ["model.gguf", "file:///etc/passwd", "http://host:port/", ""])
async def test_wrong_address_is_the_callers_fault(
    downloader: HttpDownloader, target: Path, url: str
) -> None:
    """Nothing is asked anywhere."""
    with pytest.raises(InvalidValue, match="an http or https address"):
        await downloader.fetch(url, target)


async def test_secrets_of_an_address_are_not_shown(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """Neither a password nor a signature."""
    url = server.address.replace("http://", "http://me:secret@") + "/gone?signature=secret"
    with pytest.raises(DownloadNotFound) as raised:
        await downloader.fetch(url, target)
    assert "secret" not in str(raised.value)


async def test_disk_without_room_is_told_before_anything_is_fetched(
    server: FileServer, downloader: HttpDownloader, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is needed and what there is."""
    usage = shutil.disk_usage(target.parent)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(NoSpace, match="1 MiB free, 3 MiB are needed"):
        await downloader.fetch(f"{server.address}/model.gguf", target)
    assert left_in(target.parent) == []


async def test_disk_that_fills_up_keeps_what_came(
    server: FileServer, downloader: HttpDownloader, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next call goes on from there."""
    original = os.write

    def write(descriptor: int, data: bytes) -> int:
        if len(data) > 1000 and os.fstat(descriptor).st_size > HALF:
            raise OSError(28, "No space left on device")
        return original(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(NoSpace, match=r"model\.gguf"):
        await downloader.fetch(f"{server.address}/model.gguf", target)
    monkeypatch.undo()
    got = await downloader.fetch(f"{server.address}/model.gguf", target)
    assert got.kept_bytes > HALF


async def test_two_at_once_do_not_mix(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """The second is told that somebody else is at it."""
    file = PartialFile(target, "elsewhere")
    try:
        with pytest.raises(DownloadFailed, match="another process fetches it"):
            await downloader.fetch(f"{server.address}/model.gguf", target)
    finally:
        file.close()
    await downloader.fetch(f"{server.address}/model.gguf", target)


async def test_planted_link_is_not_followed(
    server: FileServer, downloader: HttpDownloader, target: Path, tmp_path: Path
) -> None:
    """What it leads to is not touched."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    partial_of(target).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        await downloader.fetch(f"{server.address}/model.gguf", target)
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_cancelled_download_keeps_what_came(
    server: FileServer, downloader: HttpDownloader, target: Path
) -> None:
    """And lets go of the file."""
    url = f"{server.address}/model.gguf"
    with anyio.CancelScope() as scope:

        def stop(progress: DownloadProgress) -> None:
            if progress.done_bytes > HALF:
                scope.cancel()

        await downloader.fetch(url, target, on_progress=stop)
    assert scope.cancelled_caught
    kept = partial_of(target).stat().st_size
    assert kept > HALF
    got = await downloader.fetch(url, target)
    assert (got.kept_bytes, got.sha256) == (kept, SHA256)


async def test_silent_server_is_given_up(
    server: FileServer, target: Path, clock: HastyClock
) -> None:
    """A connection that brings nothing is no connection."""
    downloader = HttpDownloader(clock=clock, silence_timeout_s=0.05)
    given_up = threading.Event()

    def say_nothing(_handler: object) -> None:
        given_up.wait(10)

    server.then("/model.gguf", say_nothing)
    try:
        await downloader.fetch(f"{server.address}/model.gguf", target, sha256=SHA256)
    finally:
        given_up.set()
        await downloader.aclose()
    assert len(clock.slept) == 1


async def test_small_document_is_bounded(server: FileServer, downloader: HttpDownloader) -> None:
    """It is returned whole, or is an error."""
    url = server.put("/list.json", b'{"a": 1}')
    server.then("/list.json", status(503), cut_after(3))
    assert await downloader.fetch_bytes(url, max_bytes=8) == b'{"a": 1}'
    with pytest.raises(DownloadFailed, match="longer than 7 bytes"):
        await downloader.fetch_bytes(url, max_bytes=7)
    with pytest.raises(DownloadNotFound):
        await downloader.fetch_bytes(f"{server.address}/gone", max_bytes=7)


ACTS = {
    "cut early": cut_after(1000),
    "cut late": cut_after(70_000),
    "500": status(500),
    "429": status(429, retry_after="1"),
    "no ranges": ignoring_ranges,
    "chunks": chunked,
    "lies": claiming(10**6),
}


@given(
    acts=st.lists(st.sampled_from(sorted(ACTS)), max_size=5),
    kept=st.integers(0, 120_000),
    sound=st.booleans(),
    known=st.booleans(),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_file_is_right_whatever_happened_before(
    server: FileServer, tmp_path: Path, acts: list[str], kept: int, sound: bool, known: bool
) -> None:
    """Any beginning, sound or not, and any five misfortunes: the file is whole, or an error."""
    content = CONTENT[:100_000]
    target = tmp_path / "any"
    url = server.put("/any", content)
    server.acts.clear()
    server.then("/any", *[ACTS[name] for name in acts])
    partial_of(target).write_bytes((content if sound else bytes(100_000))[:kept])
    sha256 = hashlib.sha256(content).hexdigest()

    async def fetch() -> None:
        downloader = HttpDownloader(clock=HastyClock())
        try:
            await downloader.fetch(url, target, sha256=sha256 if known else None)
        finally:
            await downloader.aclose()

    anyio.run(fetch)
    assert target.read_bytes() == content
    assert left_in(tmp_path) == ["any"]
