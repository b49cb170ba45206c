"""``gglib engine``, as its users type it, with a release server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Home
from support.extras import require_embedded_engine
from support.file_server import FileServer, cut_after, file_server, redirect, status
from support.releases import Entry, put_release, server_program, tar_gz

from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib_adapters.engines import llama_installer, llama_releases
from gglib_adapters.engines.llama_releases import Machine

LIBRARY = os.urandom(100_000)
OLD, NEW = "b11407", "b11476"


@pytest.fixture(autouse=True)
def _on_ubuntu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is released for others is not looked at."""
    monkeypatch.setattr(llama_installer, "this_machine", lambda: Machine("ubuntu", "x64"))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as files:
        yield files


@pytest.fixture
def home(tmp_path: Path, server: FileServer) -> Home:
    """Return a data directory that fetches from ``server``, without a llama-server on PATH."""
    bare = os.pathsep.join(["/usr/bin", "/bin"])
    url = f"{server.address}/releases"
    return Home.make(tmp_path, GGLIB_LLAMA_RELEASE_URL=url, PATH=bare)


def link(name: str, target: str) -> tarfile.TarInfo:
    """Return a symbolic link for an archive."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def archive(tag: str, *more: Entry, program: bytes | None = None) -> bytes:
    """Return an archive as llama.cpp packs them."""
    version = tag.removeprefix("b")
    top = f"llama-{tag}"
    return tar_gz(
        [
            (f"{top}/LICENSE.txt", b"MIT"),
            (f"{top}/llama-server", server_program(version) if program is None else program),
            (f"{top}/libllama.so.0.1", LIBRARY),
            link(f"{top}/libllama.so.0", "libllama.so.0.1"),
            link(f"{top}/libllama.so", "libllama.so.0"),
            *more,
        ]
    )


def name_of(tag: str, backend: str = "") -> str:
    """Return what llama.cpp calls an archive for this machine."""
    return f"llama-{tag}-bin-ubuntu-{backend + '-' if backend else ''}x64.tar.gz"


def release(server: FileServer, tag: str, **options: Any) -> str:
    """Release ``tag``; return where its archive is on the server."""
    put_release(server, tag, {name_of(tag): archive(tag)}, **options)
    return f"/releases/download/{tag}/{name_of(tag)}"


def engine(home: Home) -> dict[str, Any]:
    """Return what ``engine list`` says of llama-server."""
    (found,) = [row for row in home.json("engine", "list")["engines"] if row["name"][0] == "l"]
    return dict(found)


def installed(home: Home) -> dict[str, bool]:
    """Return the versions that are kept, and whether each is in use."""
    rows = home.json("engine", "list")["installed"]
    return {row["version"]: row["current"] for row in rows}


def test_installed_engine_is_found_and_used(home: Home, server: FileServer) -> None:
    """It is verified, private, runnable, and whole with its libraries."""
    release(server, NEW)
    done = home.run("engine", "install", "--version", NEW)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"installed llama-server {NEW} (")
    found = engine(home)
    assert (found["source"], found["version"]) == ("installed", "11476 (abc)")
    assert found["can"] == ["slots", "lora", "embeddings", "metrics"]
    program = Path(found["path"])
    assert program.stat().st_mode & 0o777 == 0o700
    assert program.with_name("libllama.so").read_bytes() == LIBRARY
    folder = home.path / "engines" / "llama-server"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".downloads",
        ".lock",
        NEW,
        "current",
    ]
    assert list((folder / ".downloads").iterdir()) == []


@pytest.mark.engine
def test_model_is_served_by_what_was_installed(
    home: Home, server: FileServer, tmp_path: Path
) -> None:
    """A real server, out of an archive."""
    require_embedded_engine()
    program = server_program(serves=True)
    put_release(server, NEW, {name_of(NEW): archive(NEW, program=program)})
    assert home.run("engine", "install", "--version", NEW).returncode == 0
    model = tmp_path / "tiny.gguf"
    model.write_bytes(tiny_gguf())
    assert home.run("model", "add", str(model)).returncode == 0
    started = home.run("start", "tiny")
    assert started.returncode == 0, started.stderr
    try:
        (row,) = home.json("ps")
        assert row["engine"] == "llama-server"
    finally:
        assert home.run("stop", "--all").returncode == 0


def test_version_that_runs_is_not_removed(home: Home, server: FileServer) -> None:
    """Exit status 4, with who runs it."""
    release(server, NEW)
    home.run("engine", "install", "--version", NEW)
    program = engine(home)["path"]
    # What it is called tells: a script's program is the shell.
    with subprocess.Popen([program, "60"], executable="/bin/sleep") as process:
        try:
            refused = home.run("engine", "remove", NEW)
        finally:
            process.kill()
    assert refused.returncode == 4
    assert f"{NEW} of engine 'llama-server' is in use by pid {process.pid}" in refused.stderr
    assert home.json("engine", "remove", NEW) == {"removed": NEW, "engine": "llama-server"}
    assert installed(home) == {}


def test_previous_version_is_kept_and_gone_back_to(home: Home, server: FileServer) -> None:
    """Until it is removed; the one in use can be removed, too, and none is in use then."""
    for tag in (OLD, NEW):
        release(server, tag)
        done = home.run("engine", "install", "--version", tag)
        assert done.returncode == 0, done.stderr
    assert f"{OLD} is kept; `gglib engine use {OLD}` goes back to it" in done.stdout
    assert installed(home) == {NEW: True, OLD: False}
    assert home.json("engine", "use", OLD)["current"] is True
    assert engine(home)["version"] == "11407 (abc)"
    again = home.run("engine", "install", "--version", NEW)
    assert again.stdout.startswith(f"was installed already: llama-server {NEW}")
    asked = [request.path for request in server.requests]
    assert asked.count(f"/releases/download/{NEW}/{name_of(NEW)}") == 1
    gone = home.run("engine", "remove", NEW)
    assert "no installed llama-server is in use now" in gone.stdout
    assert engine(home)["problem"] == "no llama-server on PATH and none installed"
    assert installed(home) == {OLD: False}


def test_programs_are_told_of_progress(home: Home, server: FileServer) -> None:
    """One JSON object on each line; the last says what there is now."""
    release(server, NEW)
    done = home.run("engine", "install", "--version", NEW, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "step",
        "step",
        "installed",
    ]
    assert events[-1]["version"] == NEW
    assert events[-1]["previous"] is None
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done_bytes"] == progress[-1]["total_bytes"]


def test_broken_connection_and_busy_server_are_waited_out(home: Home, server: FileServer) -> None:
    """Behind a redirect to another host, as GitHub has it; what came is not fetched again."""
    path = release(server, NEW)
    with file_server() as storage:
        url = storage.put("/blob", server.files[path])
        server.then(path, *[redirect(url)] * 3)
        server.then(f"/releases/tags/{NEW}", status(429, retry_after="0"))
        storage.then("/blob", cut_after(2000), status(503))
        done = home.run("engine", "install", "--version", NEW)
        assert done.returncode == 0, done.stderr
        assert [request.first_byte for request in storage.requests] == [0, 2000, 2000]
    assert installed(home) == {NEW: True}


def test_interrupted_install_goes_on_where_it_was(home: Home, server: FileServer) -> None:
    """The next call asks for the rest alone."""
    path = release(server, NEW)
    server.then(path, cut_after(2000), *[status(403)])
    refused = home.run("engine", "install", "--version", NEW)
    assert (refused.returncode, installed(home)) == (4, {})
    assert home.run("engine", "install", "--version", NEW).returncode == 0
    assert server.asked(path)[-1].first_byte == 2000


def test_wrong_checksum_installs_nothing(home: Home, server: FileServer) -> None:
    """What was in use stays in use."""
    release(server, OLD)
    home.run("engine", "install", "--version", OLD)
    path = release(server, NEW)
    server.put(path, server.files[path][:-1] + b"!")
    failed = home.run("engine", "install", "--version", NEW)
    assert failed.returncode == 1
    assert "is not what was asked for: its sha256 is" in failed.stderr
    assert installed(home) == {OLD: True}
    assert engine(home)["version"] == "11407 (abc)"


def test_known_release_must_be_the_known_one(home: Home, server: FileServer) -> None:
    """A mirror is not believed: what the usual release is, gglib knows by heart."""
    tag = llama_releases.DEFAULT_TAG
    _, size_bytes = llama_releases._PINNED["ubuntu-x64.tar.gz"]
    server.put(f"/releases/download/{tag}/{name_of(tag)}", bytes(size_bytes))
    failed = home.run("engine", "install")
    assert failed.returncode == 1
    assert "expected 91d7b03ddae498a3" in failed.stderr
    assert [request.path for request in server.requests] == [
        f"/releases/download/{tag}/{name_of(tag)}"
    ]


def test_release_without_a_digest_needs_the_users_word(home: Home, server: FileServer) -> None:
    """A wrong word is found out, too."""
    path = release(server, NEW, digests=False)
    refused = home.run("engine", "install", "--version", NEW)
    assert refused.returncode == 1
    assert "nobody says what its sha256 is to be; give it with --sha256" in refused.stderr
    sha256 = hashlib.sha256(server.files[path]).hexdigest()
    wrong = home.run("engine", "install", "--version", NEW, "--sha256", "0" * 64)
    assert wrong.returncode == 1
    right = home.run("engine", "install", "--version", NEW, "--sha256", sha256.upper())
    assert right.returncode == 0, right.stderr


def test_users_word_and_the_releases_must_agree(home: Home, server: FileServer) -> None:
    """Nothing is fetched when they do not."""
    path = release(server, NEW)
    refused = home.run("engine", "install", "--version", NEW, "--sha256", "0" * 64)
    assert refused.returncode == 1
    assert "and the release says" in refused.stderr
    assert server.asked(path) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--version", "b99999"], 3, "there is no release b99999 at"),
        (["--version", "latest"], 2, "version is 'latest'; expected a release of llama.cpp"),
        (["--version", "../../b1"], 2, "expected a release of llama.cpp"),
        (["--variant", "../cuda", "--version", NEW], 2, "variant is '../cuda'; expected cpu, cuda"),
        (["--variant", "cuda", "--version", NEW], 3, "has no 'cuda' for ubuntu x64; it has cpu"),
        (["vllm"], 3, "it cannot be installed; those that can: llama-server, embedded"),
        (["embedded", "--variant", "cuda"], 2, "the wheel of xllamacpp has no other"),
        (["embedded", "--version", "; rm"], 2, "expected a version of xllamacpp"),
    ],
)
def test_what_cannot_be_installed_is_said(
    home: Home, server: FileServer, arguments: list[str], code: int, message: str
) -> None:
    """With what there is instead."""
    release(server, NEW)
    failed = home.run("engine", "install", *arguments)
    assert (failed.returncode, message in failed.stderr) == (code, True), failed.stderr


@pytest.mark.parametrize("command", ["use", "remove"])
def test_version_that_is_not_there_is_said(home: Home, command: str) -> None:
    """With those that are; and a name is no path."""
    for version in (NEW, "../../../etc"):
        failed = home.run("engine", command, version)
        assert failed.returncode == 3
        assert f"version '{version}' is not installed; installed: none" in failed.stderr


def test_program_that_does_not_run_here_is_not_installed(home: Home, server: FileServer) -> None:
    """Built for another machine, or needing a library that is not here."""
    release(server, OLD)
    home.run("engine", "install", "--version", OLD)
    for program in (b"\x7fELF of another kind", b"#!/bin/sh\necho libvulkan.so.1 is missing\n"):
        content = archive(NEW, program=program)
        put_release(server, NEW, {name_of(NEW): content})
        failed = home.run("engine", "install", "--version", NEW)
        assert failed.returncode == 1
        assert "it does not run here" in failed.stderr
        assert installed(home) == {OLD: True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "is broken"),
        (tar_gz([("llama/llama-cli", b"")]), "holds 0 files called llama-server, not one"),
        (tar_gz([("a/llama-server", b""), ("b/llama-server", b"")]), "holds 2 files called"),
        (tar_gz([("../llama-server", b"")]), "a file with the name '../llama-server'"),
        (tar_gz([link("llama-server", "/bin/sh")]), "leads out, to '/bin/sh'"),
    ],
    ids=["no archive", "no program", "two programs", "out of its folder", "link out"],
)
def test_archive_that_is_not_an_engine_is_not_installed(
    home: Home, server: FileServer, content: bytes, message: str
) -> None:
    """Whatever its checksum says."""
    put_release(server, NEW, {name_of(NEW): content})
    failed = home.run("engine", "install", "--version", NEW)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert installed(home) == {}


def test_libraries_of_a_gpu_are_laid_beside_the_program(home: Home, server: FileServer) -> None:
    """llama.cpp has them in an archive of their own; the oldest CUDA runs with most drivers."""
    cudart = tar_gz(
        [
            ("cudart/lib/libcudart.so.12.8", b"cuda"),
            link("cudart/lib/libcudart.so.12", "libcudart.so.12.8"),
        ]
    )
    archives = {name_of(NEW): archive(NEW)}
    for version in ("13.4", "12.8"):
        archives[name_of(NEW, f"cuda-{version}")] = archive(NEW, (f"{version}.txt", b""))
        archives[f"cudart-{name_of(NEW, f'cuda-{version}')}"] = cudart
    put_release(server, NEW, archives)
    done = home.run("engine", "install", "--version", NEW, "--variant", "cuda")
    assert done.returncode == 0, done.stderr
    assert installed(home) == {f"{NEW}-cuda": True}
    program = Path(engine(home)["path"])
    assert program.with_name("libcudart.so.12").read_bytes() == b"cuda"
    assert (program.parents[1] / "12.8.txt").exists()


def test_what_a_kill_left_is_cleared_away(home: Home, server: FileServer) -> None:
    """At the next installation; until then it is no version."""
    release(server, NEW)
    left = home.path / "engines" / "llama-server" / ".new-abc"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"")
    (left.parent / OLD).mkdir()
    assert installed(home) == {}
    assert home.run("engine", "install", "--version", NEW).returncode == 0
    assert not left.exists()


def test_offline_tells_the_other_ways(tmp_path: Path) -> None:
    """And not a traceback."""
    home = Home.make(tmp_path, GGLIB_LLAMA_RELEASE_URL="http://127.0.0.1:1/releases")
    failed = home.run("engine", "install")
    assert failed.returncode == 1
    for way in ("gglib[llama]", "PATH", "GGLIB_LLAMA_SERVER", "command engine"):
        assert way in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize("url", ["http://example.com/releases", "file:///tmp", "releases"])
def test_releases_come_over_https(home: Home, url: str) -> None:
    """Or from this machine: what comes otherwise could be anybody's."""
    home.configure(f'[engines.llama-server]\nrelease_url = "{url}"\n')
    plain = Home(home.path, {**home.environment, "GGLIB_LLAMA_RELEASE_URL": ""})
    failed = plain.run("engine", "install")
    assert (failed.returncode, "expected an https address" in failed.stderr) == (2, True)


def test_release_url_may_be_a_setting(home: Home, server: FileServer) -> None:
    """The variable is stronger."""
    release(server, NEW)
    home.configure(f'[engines.llama-server]\nrelease_url = "{server.address}/releases/"\n')
    plain = Home(home.path, {**home.environment, "GGLIB_LLAMA_RELEASE_URL": ""})
    assert plain.run("engine", "install", "--version", NEW).returncode == 0


def test_engine_is_probed_by_its_name_or_path(home: Home, tmp_path: Path) -> None:
    """With the flags that it knows."""
    program = tmp_path / "my-server"
    program.write_bytes(server_program("77"))
    program.chmod(0o755)
    probed = home.json("engine", "probe", str(program))
    assert (probed["version"], probed["source"]) == ("77 (abc)", "setting")
    assert "--spec-draft-n-max" in probed["flags"]
    shown = home.run("engine", "probe", str(program)).stdout
    assert "can       slots, lora, embeddings, metrics" in shown
    assert "--spec-draft-n-max" in shown
    assert home.run("engine", "probe").returncode == 3
    assert home.run("engine", "probe", "nobody").returncode == 3
    missing = home.run("engine", "probe", "/no/such/program")
    assert (missing.returncode, "does not exist" in missing.stderr) == (3, True)
