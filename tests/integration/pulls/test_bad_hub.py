"""``gglib model pull`` from a hub that refuses, breaks, or lies: said, and nothing lost."""

from __future__ import annotations

import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Home
from support.hub import Fault, LocalHub
from support.pulled import files_below, home_for, model_bytes

_NAME = "tiny-Q4_K_M.gguf"


def refused(home: Home, reference: str, status: int, *said: str) -> None:
    """Check that a pull ends with ``status``, in one line that says all of ``said``."""
    done = home.run("model", "pull", reference)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.count("\n") == 1
    for words in said:
        assert words in done.stderr


def test_unknown_repository_is_told_with_close_names(hub: LocalHub, home: Home) -> None:
    """Those of its owner, and those of its name elsewhere."""
    hub.add("acme/Tiny-GGUF", {_NAME: model_bytes()})
    hub.add("other/Tony-GGUF", {_NAME: model_bytes()})

    refused(home, "acme/Tony-GGUF", 3, "no repository acme/Tony-GGUF", "acme/Tiny-GGUF", "other/")
    refused(home, "no-repository", 2, "'no-repository' is no repository; write OWNER/NAME")


def test_unknown_quantization_or_revision_is_told(hub: LocalHub, home: Home) -> None:
    """With the quantizations that there are."""
    hub.add("acme/tiny", {_NAME: model_bytes(), "readme.txt": b""})
    hub.add("acme/empty", {"model.safetensors": b""})

    refused(home, "acme/tiny:Q4_K_S", 3, "no quantization 'Q4_K_S'; it has Q4_K_M")
    refused(home, "acme/empty", 3, "acme/empty has no whole GGUF model")
    done = home.run("model", "pull", "acme/tiny", "--revision", "v9")
    assert (done.returncode, "no branch, tag or commit 'v9'" in done.stderr) == (3, True)
    done = home.run("model", "pull", "acme/tiny", "--revision", "../../etc")
    assert (done.returncode, "expected a branch, a tag or a commit" in done.stderr) == (2, True)


def test_model_of_which_shards_are_missing_is_not_offered(hub: LocalHub, home: Home) -> None:
    """A part of a model is none."""
    hub.add("acme/part", {"part-Q4_K_M-00001-of-00002.gguf": model_bytes()})
    refused(home, "acme/part", 3, "no whole GGUF model")


def test_gated_repository_says_how_to_get_in(hub: LocalHub, tmp_path: Path) -> None:
    """Without a token, with one that was not let in, and with the right one."""
    hub.add("acme/gated", {_NAME: model_bytes()}, gated=True)
    for token in ("", "hf_somebody_else"):
        home = home_for(tmp_path, hub, token)
        refused(home, "acme/gated", 4, "gated", "accept its terms", "HF_TOKEN")

    assert home_for(tmp_path, hub, hub.token).run("model", "pull", "acme/gated").returncode == 0


def test_token_is_told_to_the_hub_alone_and_kept_nowhere(hub: LocalHub, tmp_path: Path) -> None:
    """Not to the host that it redirects to; it is in no output, no file and no database."""
    hub.add("acme/private", {_NAME: model_bytes()}, private=True)
    home = home_for(tmp_path, hub)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text(f"{hub.token}\n")
    hub.file_faults.append(Fault(403))

    failed = home.run_apart("model", "pull", "acme/private", "--debug")
    done = home.run("model", "pull", "acme/private", "--json")

    assert (failed.returncode != 0, done.returncode) == (True, 0), failed.stderr + done.stderr
    assert {each.token for each in hub.of_server("hub")} == {f"Bearer {hub.token}"}
    assert {each.token for each in hub.of_server("cdn")} == {None}
    kept = b"".join(path.read_bytes() for path in home.path.rglob("*") if path.is_file())
    for secret in (hub.token, "X-Signature"):
        assert secret not in failed.stdout + failed.stderr + done.stdout + done.stderr
        assert secret.encode() not in kept
    with sqlite3.connect(home.path / "gglib.db") as database:
        assert hub.token not in "".join(database.iterdump())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_hub_that_is_busy_is_asked_again(hub: LocalHub, home: Home, status: int) -> None:
    """Twice, after as long as it says; files likewise."""
    hub.add("acme/tiny", {_NAME: model_bytes()})
    for faults in (hub.api_faults, hub.file_faults):
        faults.extend([Fault(status, {"retry-after": "0"})] * 2)

    done = home.run("model", "pull", "acme/tiny")

    assert done.returncode == 0, done.stderr
    assert len(hub.of_server("cdn")) == 3


def test_hub_that_asks_for_more_patience_is_told_of(hub: LocalHub, home: Home) -> None:
    """With the time after which it may be tried again."""
    hub.add("acme/tiny", {_NAME: model_bytes()})
    hub.api_faults.append(Fault(429, {"retry-after": "600"}))
    refused(home, "acme/tiny", 1, "too many requests", "try again in 600 s")


def test_hub_that_is_not_there_is_told_of(tmp_path: Path, hub: LocalHub) -> None:
    """With what may be wrong; a pull that was queued is not touched."""
    home = home_for(tmp_path, hub)
    gone = Home(home.path, {**home.environment, "HF_ENDPOINT": "http://127.0.0.1:9"})
    refused(gone, "acme/tiny", 1, "http://127.0.0.1:9 does not answer", "HF_ENDPOINT")


def test_broken_transfer_goes_on_where_it_broke(hub: LocalHub, home: Home) -> None:
    """Each byte is sent once."""
    content = model_bytes(2 << 20)
    hub.add("acme/tiny", {_NAME: content})
    hub.file_faults.append(Fault(cut_after_bytes=3 << 18))

    assert home.run("model", "pull", "acme/tiny").returncode == 0
    assert hub.sent_bytes == len(content)


def test_file_with_other_bytes_is_refused_whole(hub: LocalHub, home: Home) -> None:
    """What is not what the hub says is not kept; the next pull begins anew, and is right."""
    content = model_bytes()
    hub.add("acme/tiny", {_NAME: content})
    hub.served = lambda content: content[:-1] + b"!"

    refused(home, "acme/tiny", 1, "is not what was asked for: its sha256 is", "nothing was kept")
    assert files_below(home) == []
    assert home.json("model", "list") == []
    (failed,) = home.json("model", "downloads")
    assert (failed["state"], failed["error_kind"]) == ("failed", "HashMismatch")

    hub.served = lambda content: content
    assert home.run("model", "pull", "acme/tiny").returncode == 0
    assert [each["state"] for each in home.json("model", "downloads")] == ["done"]


@pytest.mark.parametrize("change", [-1, +1, 1 << 30])
def test_file_of_another_size_is_refused(hub: LocalHub, home: Home, change: int) -> None:
    """It is never taken for whole, and never more is taken than was said."""
    hub.add("acme/tiny", {_NAME: model_bytes()})

    def lie(listed: dict[str, Any]) -> dict[str, Any]:
        listed["siblings"][0]["lfs"]["size"] += change
        return listed

    hub.listing = lie
    refused(home, "acme/tiny", 1, "the server has 4256 bytes, expected")
    assert home.json("model", "list") == []


_LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path that leads out": lambda listed: _with_file(listed, rfilename="../../../evil.gguf"),
    "an absolute path": lambda listed: _with_file(listed, rfilename="/etc/evil.gguf"),
    "a path with a NUL": lambda listed: _with_file(listed, rfilename="evil\0.gguf"),
    "a path of Windows": lambda listed: _with_file(listed, rfilename="C:\\evil.gguf"),
    "an option": lambda listed: _with_file(listed, rfilename="-evil.gguf"),
    "a name of 4 kB": lambda listed: _with_file(listed, rfilename="a" * 4096 + ".gguf"),
    "a hash that is none": lambda listed: _with_file(listed, lfs={"sha256": "../..", "size": 1}),
    "a negative size": lambda listed: _with_file(listed, lfs={"sha256": "0" * 64, "size": -1}),
    "a size that is a text": lambda listed: _with_file(listed, lfs={"size": "1"}),
    "a commit that is none": lambda listed: {**listed, "sha": "main/../.."},
    "no files": lambda listed: {"sha": listed["sha"]},
    "a list": lambda listed: [listed],
    "nothing": lambda _listed: None,
}


def _with_file(listed: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**listed, "siblings": [{**listed["siblings"][0], **fields}]}


@pytest.mark.parametrize("lie", _LIES)
def test_listing_that_cannot_be_true_is_refused(hub: LocalHub, home: Home, lie: str) -> None:
    """Nothing of it is used."""
    hub.add("acme/tiny", {_NAME: model_bytes()})
    hub.listing = _LIES[lie]

    refused(home, "acme/tiny", 1, "acme/tiny")

    assert hub.of_server("cdn") == []
    assert not (home.path / "models").exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(200, body=b"<html>a proxy"), "in no JSON; is it a hub?"),
        (Fault(200, body=b"[" * 100_000), "in no JSON; is it a hub?"),
        (Fault(302, {"location": "http://127.0.0.2:1/"}), "leads elsewhere"),
        (Fault(200, body=b" " * (33 << 20)), "sends more than"),
        (Fault(418), "answered 418"),
    ],
    ids=["html", "deep", "elsewhere", "endless", "teapot"],
)
def test_answer_that_is_no_hubs_is_refused(
    hub: LocalHub, home: Home, fault: Fault, said: str
) -> None:
    """It is told what it was."""
    hub.add("acme/tiny", {_NAME: model_bytes()})
    hub.api_faults.append(fault)
    refused(home, "acme/tiny", 1, said)


def test_file_that_is_no_model_is_told_of(hub: LocalHub, home: Home) -> None:
    """Its hash is right, and still it is nothing to serve."""
    hub.add("acme/junk", {"junk-Q4_K_M.gguf": b"not a model" * 100})
    refused(home, "acme/junk", 1, "junk-Q4_K_M.gguf", "not a GGUF file")
    assert home.json("model", "list") == []


def test_full_disk_is_seen_before_anything_is_fetched(
    hub: LocalHub, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files of the model are counted, less what is there."""
    content = model_bytes(1 << 20)
    hub.add("acme/tiny", {_NAME: content})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1 << 20, 1 << 19, 1 << 19))

    refused(home, "acme/tiny", 4, "1 MiB are needed")

    assert hub.of_server("cdn") == []
    monkeypatch.undo()
    assert home.run("model", "pull", "acme/tiny").returncode == 0


def test_name_that_is_taken_is_refused_before_anything_is_fetched(
    hub: LocalHub, home: Home
) -> None:
    """A name that nobody asked for is made free instead."""
    hub.add("acme/tiny", {_NAME: model_bytes(seed=1)})
    hub.add("other/tiny", {_NAME: model_bytes(seed=2)})
    home.run("model", "pull", "acme/tiny")
    sent = hub.sent_bytes

    done = home.run("model", "pull", "other/tiny", "--name", "tiny-Q4_K_M")
    assert (done.returncode, "is taken by model" in done.stderr) == (4, True)
    assert hub.sent_bytes == sent
    home.run("model", "pull", "other/tiny")
    names = [each["name"] for each in home.json("model", "list")]
    assert names == ["other-tiny-Q4_K_M", "tiny-Q4_K_M"]


def test_pull_that_is_given_up_leaves_nothing(hub: LocalHub, home: Home) -> None:
    """What came of it is deleted; an id that is none is an error."""
    hub.add("acme/tiny", {_NAME: model_bytes(1 << 20)})
    hub.file_faults.extend([Fault(cut_after_bytes=1 << 19), Fault(403)])
    assert home.run("model", "pull", "acme/tiny").returncode == 4
    assert files_below(home) == [f"{_NAME}.partial", f"{_NAME}.partial.json"]
    (pull,) = home.json("model", "downloads")

    assert home.json("model", "downloads", "--cancel", pull["id"])["state"] == "cancelled"
    assert not (home.path / "models/acme").exists()
    done = home.run("model", "downloads", "--cancel", "nonsense")

    assert (done.returncode, "no pull 'nonsense'" in done.stderr) == (3, True)
