"""``gglib model pull`` from a hub that answers well."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.commands import Home, gglib
from support.extras import require_embedded_engine
from support.hub import LocalHub
from support.pulled import files_below, model_bytes, projector_bytes, shard_bytes

from gglib.services.demo.tiny_gguf import tiny_gguf


def test_pulled_model_is_verified_and_in_the_catalog(hub: LocalHub, home: Home) -> None:
    """With its repository, commit and SHA-256; only its own bytes were fetched."""
    content = model_bytes()
    repository = hub.add(
        "acme/tiny-GGUF", {"README.md": b"#", "tiny-Q4_K_M.gguf": content, "tiny-F16.gguf": b"?"}
    )

    done = home.run("model", "pull", "acme/tiny-GGUF")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "pulled tiny-Q4_K_M (Q4_K_M, 4.2 KiB) from acme/tiny-GGUF\n"
    model = home.json("model", "show", "tiny-Q4_K_M")
    commit = repository.branches["main"]
    assert Path(model["paths"][0]).read_bytes() == content
    folder = home.path / "models/acme/tiny-GGUF" / commit[:12] / "Q4_K_M"
    assert model["paths"] == [str(folder / "tiny-Q4_K_M.gguf")]
    assert (folder.stat().st_mode & 0o777, folder.parents[3].stat().st_mode & 0o777) == (0o700,) * 2
    assert hub.sent_bytes == len(content)
    assert home.json("model", "verify", "tiny-Q4_K_M")[0]["intact"]


def test_model_that_is_there_is_not_fetched_again(hub: LocalHub, home: Home) -> None:
    """It is said, by name and by quantization in any case; nothing is asked of the CDN."""
    hub.add("acme/tiny", {"tiny-Q4_K_M.gguf": model_bytes()})
    home.run("model", "pull", "acme/tiny")
    sent = hub.sent_bytes

    for reference in ("acme/tiny", "acme/tiny:q4_k_m", "https://huggingface.co/acme/tiny"):
        done = home.run("model", "pull", reference)
        assert done.returncode == 0
        assert done.stdout.startswith("tiny-Q4_K_M is there already, and is the newest")
    assert hub.sent_bytes == sent


def test_model_whose_file_was_deleted_is_fetched_again(hub: LocalHub, home: Home) -> None:
    """What the catalog says is not enough."""
    hub.add("acme/tiny", {"tiny-Q4_K_M.gguf": model_bytes()})
    home.run("model", "pull", "acme/tiny")
    (path,) = home.json("model", "show", "tiny-Q4_K_M")["paths"]
    Path(path).unlink()

    assert home.run("model", "pull", "acme/tiny").stdout.startswith("updated tiny-Q4_K_M")
    assert Path(path).is_file()


def test_shards_are_fetched_as_one_model(hub: LocalHub, home: Home) -> None:
    """Every shard in order, from the folder in which the repository has them."""
    shards = [shard_bytes(number, 3) for number in (1, 2, 3)]
    names = [f"Q8_0/big-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.add("acme/big", dict(zip(names, shards, strict=True)))

    events = home.run("model", "pull", "acme/big:Q8_0", "--json").stdout.splitlines()

    last = json.loads(events[-1])
    assert (last["event"], last["model"], last["files"]) == ("done", "big-Q8_0", names)
    assert last["done_bytes"] == last["total_bytes"] == sum(map(len, shards))
    paths = home.json("model", "show", "big-Q8_0")["paths"]
    assert [Path(path).read_bytes() for path in paths] == shards


def test_projector_comes_with_its_model(hub: LocalHub, home: Home) -> None:
    """Unless it is not wanted; one that is wanted and not there is an error."""
    files = {"see-Q4_K_M.gguf": model_bytes(), "mmproj-see-F16.gguf": projector_bytes()}
    hub.add("acme/see", files)
    hub.add("acme/blind", {"blind-Q4_K_M.gguf": model_bytes(seed=1)})

    home.run("model", "pull", "acme/see", "--no-mmproj")
    assert files_below(home) == ["see-Q4_K_M.gguf"]
    done = home.run("model", "pull", "acme/see")
    assert done.stdout.startswith("updated see-Q4_K_M"), done.stderr
    assert files_below(home) == ["mmproj-see-F16.gguf", "see-Q4_K_M.gguf"]
    assert hub.sent_bytes == sum(map(len, files.values()))
    assert home.run("model", "pull", "acme/see").stdout.startswith("see-Q4_K_M is there already")
    assert "vision" in home.json("model", "show", "see-Q4_K_M")["capabilities"]

    refused = home.run("model", "pull", "acme/blind", "--with-mmproj")
    assert refused.returncode == 2
    assert "acme/blind has no projector" in refused.stderr


def test_newer_files_are_told_and_fetched(hub: LocalHub, home: Home) -> None:
    """The model keeps its name and settings; shards that are the same are not fetched again."""
    old = [shard_bytes(1, 2, 8192), shard_bytes(2, 2, 8192)]
    names = ["tiny-Q4_K_M-00001-of-00002.gguf", "tiny-Q4_K_M-00002-of-00002.gguf"]
    repository = hub.add("acme/tiny", dict(zip(names, old, strict=True)))
    assert home.run("model", "pull", "acme/tiny", "--name", "mine").returncode == 0
    home.run("model", "set", "mine", "context_size=512")
    before = home.json("model", "show", "mine")

    repository.commit({**dict(zip(names, old, strict=True)), "README.md": b"more words"})
    assert home.json("model", "outdated") == []
    new = [shard_bytes(1, 2, 4096, seed=9), old[1]]
    commit = repository.commit(dict(zip(names, new, strict=True)))
    (newer,) = home.json("model", "outdated")
    assert (newer["model"], newer["newest"], newer["size_bytes"]) == ("mine", commit, len(new[0]))
    sent = hub.sent_bytes
    done = home.run("model", "pull", "acme/tiny")

    assert done.stdout.startswith("updated mine"), done.stderr
    assert hub.sent_bytes - sent == len(new[0])
    after = home.json("model", "show", "mine")
    assert [Path(path).read_bytes() for path in after["paths"]] == new
    assert (after["id"], after["settings"]) == (before["id"], before["settings"])
    assert files_below(home) == names, "the old files are gone"
    assert home.json("model", "outdated") == []


def test_tag_is_followed_where_it_was_asked_for(hub: LocalHub, home: Home) -> None:
    """What is on the main branch does not make it outdated."""
    repository = hub.add("acme/tiny", {"tiny-Q4_K_M.gguf": model_bytes(seed=1)})
    repository.commit({"tiny-Q4_K_M.gguf": model_bytes(seed=2)}, branch="v1")

    home.run("model", "pull", "acme/tiny", "--revision", "v1")

    assert home.json("model", "outdated") == []
    repository.commit({"tiny-Q4_K_M.gguf": model_bytes(seed=3)}, branch="v1")
    assert len(home.json("model", "outdated")) == 1


def test_two_pulls_at_once_fetch_once(hub: LocalHub, home: Home) -> None:
    """Two processes ask for the same: one fetches, both say that it is there."""
    content = model_bytes(2 << 20)
    hub.add("acme/tiny", {"tiny-Q4_K_M.gguf": content})
    hub.bytes_per_s = 4 << 20
    both = [
        subprocess.Popen(
            [gglib(), "model", "pull", "acme/tiny"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(home.environment),
            text=True,
        )
        for _ in range(2)
    ]

    said = [process.communicate(timeout=40) for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    assert hub.sent_bytes == len(content)
    assert len(home.json("model", "list")) == 1


def test_repositories_are_found_and_their_quantizations_listed(hub: LocalHub, home: Home) -> None:
    """With sizes, what fits, and which one a pull takes."""
    huge = model_bytes(64)
    hub.add("acme/tiny-GGUF", {"tiny-Q4_K_M.gguf": huge, "tiny-Q8_0.gguf": huge}, downloads=7)
    hub.add("acme/other", {"other-Q4_0.gguf": huge})

    def far_too_big(listed: dict[str, object]) -> dict[str, object]:
        for sibling in listed["siblings"]:  # type: ignore[attr-defined]
            if "Q4_K_M" in sibling["rfilename"]:
                sibling["lfs"]["size"] = sibling["size"] = 1 << 50
        return listed

    hub.listing = far_too_big
    (found,) = home.json("model", "search", "tiny")
    assert (found["repository"], found["downloads"]) == ("acme/tiny-GGUF", 7)
    listed = {each["quantization"]: each for each in home.json("model", "quants", "acme/tiny-GGUF")}
    assert {name: (each["fits"], each["default"]) for name, each in listed.items()} == {
        "Q4_K_M": (False, False),
        "Q8_0": (True, True),
    }


def test_fetched_file_may_be_deleted_with_its_model(hub: LocalHub, home: Home) -> None:
    """gglib fetched it, so gglib may; its projector goes with it."""
    hub.add("acme/see", {"see-Q4_K_M.gguf": model_bytes(), "mmproj-F16.gguf": projector_bytes()})
    home.run("model", "pull", "acme/see")
    assert files_below(home) == ["mmproj-F16.gguf", "see-Q4_K_M.gguf"]

    done = home.run("model", "remove", "see-Q4_K_M", "--delete-file")

    assert done.returncode == 0, done.stderr
    assert files_below(home) == []


@pytest.mark.engine
def test_repository_can_be_run(hub: LocalHub, home: Home) -> None:
    """It is fetched, and answers; the second time it is there, whatever the hub says."""
    require_embedded_engine()
    hub.add("acme/tiny", {"tiny-F32.gguf": tiny_gguf()})
    ask = ("-p", "hi", "--set", "max_tokens=4")
    done = home.run_apart("run", "acme/tiny", *ask)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "pulled tiny-F32 (" in done.stderr
    sent = hub.sent_bytes
    again = home.run_apart("run", "acme/tiny:f32", *ask)
    assert again.returncode == 0, again.stderr
    assert "pulled" not in again.stderr
    assert hub.sent_bytes == sent
    assert home.run_apart("run", "acme/none", *ask).returncode == 3
