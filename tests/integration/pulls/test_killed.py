"""``gglib model pull``, killed: nothing is lost, and hardly anything is fetched twice."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home, gglib
from support.hub import LocalHub, local_hub
from support.pulled import home_for, model_bytes

#: The hub's speed. What a process that gets no time to run leaves unread in its sockets counts as
#: fetched: the slower the line, the less that is beside the whole.
_BYTES_PER_S = 8 << 20
_SIZE = 16 << 20
#: What is fetched again, at the most, of all that a model has.
_AGAIN = 0.05


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as hub:
        hub.bytes_per_s = _BYTES_PER_S
        yield hub


def killed_at(home: Home, hub: LocalHub, sent_bytes: int) -> bool:
    """Pull, kill -9 when the hub has sent that much; return whether it was hit in time."""
    process = subprocess.Popen(
        [gglib(), "model", "pull", "acme/tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(home.environment),
    )
    hub.wait_sent(sent_bytes)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=30)
    assert process.returncode in {-signal.SIGKILL, 0}, said
    return process.returncode != 0


def check_pulled(home: Home, content: list[bytes]) -> None:
    """Pull to the end; the catalog has the model, its files are those of the hub, and no others."""
    done = home.run("model", "pull", "acme/tiny")
    assert done.returncode == 0, done.stderr
    (model,) = home.json("model", "list")
    files = [Path(path).read_bytes() for path in model["paths"]]
    assert [hashlib.sha256(file).digest() for file in files] == [
        hashlib.sha256(file).digest() for file in content
    ]
    left = [path for path in (home.path / "models").rglob("*") if path.is_file()]
    assert sorted(map(str, left)) == sorted(model["paths"])
    (pull,) = home.json("model", "downloads")
    assert pull["state"] == "done"


def check_killed(folder: Path, hub: LocalHub, point: float, size_bytes: int = _SIZE) -> None:
    """One model, killed once at that part of it."""
    content = model_bytes(size_bytes, seed=int(point * 1e6))
    hub.sent.clear()
    hub.add("acme/tiny", {"tiny-Q4_K_M.gguf": content})
    home = home_for(folder, hub)

    killed_at(home, hub, int(point * len(content)))
    check_pulled(home, [content])

    assert hub.sent_bytes <= (1 + _AGAIN) * len(content)


@pytest.mark.parametrize("point", [0.001, random.Random(11).random(), 0.99])
def test_pull_killed_at_a_point_goes_on_from_there(
    hub: LocalHub, tmp_path: Path, point: float
) -> None:
    """At its begin, at its end, and in between: at most 5 % are fetched again."""
    check_killed(tmp_path, hub, point)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_pull_killed_at_twenty_random_points_goes_on_each_time(
    hub: LocalHub, tmp_path: Path
) -> None:
    """Twenty models, each killed somewhere else."""
    points = random.Random(2026)
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        check_killed(folder, hub, points.random(), 32 << 20)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_one_pull_killed_twenty_times_ends_whole(hub: LocalHub, tmp_path: Path) -> None:
    """384 MiB, killed again and again: 5 % more is all that is fetched.

    Each kill loses what one connection has on its way, some 0.4 MiB: that is all of a small model.
    """
    content = model_bytes(384 << 20)
    hub.add("acme/tiny", {"tiny-Q4_K_M.gguf": content})
    hub.bytes_per_s = 4 * _BYTES_PER_S
    home = home_for(tmp_path, hub)
    points = random.Random(2026)

    kills = 0
    for part in sorted(points.uniform(0, 0.95) for _ in range(20)):
        if hub.sent_bytes < part * len(content):
            kills += killed_at(home, hub, int(part * len(content)))
    check_pulled(home, [content])

    assert kills >= 15
    assert hub.sent_bytes <= (1 + _AGAIN) * len(content)
