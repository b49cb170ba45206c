"""``start``, ``stop``, ``ps``, ``logs``, ``doctor``: with a gateway and without one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import psutil
import pytest
from support.commands import Home, Served, stub_config, stub_section
from support.servers import processes_of

from gglib.testing.contexts import make_context
from gglib_adapters.catalog.registry import open_sqlite_registry


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.make(tmp_path)
    home.configure(stub_config("a", "b"), "a", "b")
    return home


def lives(pid: int) -> bool:
    """Whether a process runs; what nobody has reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_server_started_alone_runs_on_until_it_is_stopped(home: Home) -> None:
    """It outlives the command that started it."""
    started = home.json("start", "a")
    assert httpx.get(f"{started['base_url']}/health", trust_env=False).status_code == 200
    (row,) = home.json("ps")
    assert (row["model"], row["state"], row["owner"]) == ("a", "ready", "standalone")
    assert row["pid"] == started["pid"]
    assert "a      ready" in home.run("ps").stdout
    again = home.json("start", "a")
    assert again["already"]
    assert "ready at" in home.run("logs", "a").stdout
    stopped = home.run("stop", "a")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped a\n")
    assert not lives(started["pid"])
    assert home.json("ps") == []


def test_gateway_loads_and_unloads_for_the_commands(home: Home) -> None:
    """With a gateway alive, the commands go through it."""
    with home.serve() as served:
        assert home.json("start", "a")["by"] == "gateway"
        (row,) = home.json("ps")
        assert (row["model"], row["owner"], row["in_flight"]) == ("a", "gateway", 0)
        assert served.chat("a").status_code == 200
        assert home.run("stop", "--all").stdout == "stopped a\n"
        assert home.json("ps") == []


def test_gateway_takes_turns_between_models(home: Home) -> None:
    """One resident; the other's request swaps it in."""
    home.configure(stub_config("a", "b", extra='[routing]\nplanner = "exclusive"\n'), "a", "b")
    with home.serve() as served:
        assert served.chat("a").json()["model"] == "a"
        assert served.chat("b").json()["model"] == "b"
        assert [row["model"] for row in home.json("ps")] == ["b"]


def test_gateway_that_ends_stops_its_servers_and_leaves_no_trace(home: Home) -> None:
    """No process, no note, no row."""
    with home.serve() as served:
        served.chat("a")
        (row,) = home.json("ps")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
    assert not lives(row["pid"])
    assert home.json("ps") == []
    assert not (home.path / "gateway.json").exists()


def ask_in_vain(served: Served, model: str) -> None:
    """Wait for an answer that never comes."""
    with contextlib.suppress(httpx.TransportError):
        served.chat(model)


THREE = '[routing]\nplanner = "count"\n[pool]\nmax_size = 4\n'


@pytest.mark.parametrize("finishes", [False, True])
def test_gateway_that_was_killed_is_followed_by_one_that_adopts(home: Home, finishes: bool) -> None:
    """Three servers answer again from the same processes; one that was loading is ended.

    Also where its loading has come to an end before the next gateway looks.
    """
    gate = home.path / "gate"
    late = stub_section("slow", "late", gate=str(gate))
    home.configure(stub_config("a", "b", "c", extra=THREE + late), "a", "b", "c", "late")
    os.mkfifo(gate)
    with home.serve() as served:
        for name in ("a", "b", "c"):
            assert served.chat(name).status_code == 200
        waiting = threading.Thread(target=ask_in_vain, args=(served, "late"))
        waiting.start()
        while len(before := {row["model"]: row for row in home.json("ps")}) < 4:
            pass
        served.process.kill()
        served.process.wait(20)
        waiting.join()
    assert "its owner is gone" in home.run("doctor").stdout
    pids = {name: row["pid"] for name, row in before.items()}
    assert set(processes_of(home.path)) == set(pids.values())
    loading = pids.pop("late")
    if finishes:
        gate.open("wb").close()
        until_healthy(before["late"]["port"])
    # From now on it loads at once.
    gate.unlink()
    gate.touch()

    with home.serve() as served:
        assert set(processes_of(home.path)) == set(pids.values())
        assert not lives(loading)
        took_s = []
        for name in pids:
            began = time.monotonic()
            assert served.chat(name).status_code == 200
            took_s.append(time.monotonic() - began)
        print(f"first answers after {[f'{each:.3f}' for each in took_s]} s")
        assert max(took_s) < 1
        rows = home.json("ps")
        assert {row["model"]: row["pid"] for row in rows} == pids
        assert {row["owner"] for row in rows} == {"gateway"}
        assert served.chat("late").status_code == 200
    assert processes_of(home.path) == [], "what is adopted is the gateway's"
    assert home.json("ps") == []


def until_healthy(port: int) -> None:
    """Return when a server has loaded."""
    with httpx.Client(trust_env=False) as client:
        while client.get(f"http://127.0.0.1:{port}/health").status_code != 200:
            pass


def doctor_row(home: Home, **changes: object) -> None:
    """Change the handle in the one row of the registry."""

    async def work() -> None:
        async with open_sqlite_registry(make_context(home.path)) as registry:
            (record,) = await registry.list()
            assert record.handle is not None
            handle = attrs.evolve(record.handle, **changes)  # type: ignore[arg-type]
            await registry.put(attrs.evolve(record, handle=handle))

    anyio.run(work)


def killed(home: Home) -> int:
    """Kill a gateway that has one server, of model a; return that one's pid."""
    with home.serve() as served:
        assert served.chat("a").status_code == 200
        (row,) = home.json("ps")
        served.process.kill()
        served.process.wait(20)
    return int(row["pid"])


def test_stranger_with_the_pid_of_a_row_is_left_alone(home: Home) -> None:
    """The row goes, the stranger lives, and the model is started anew."""
    os.kill(killed(home), signal.SIGKILL)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            # As it is when a pid comes round again: after longer than this test takes.
            doctor_row(home, pid=stranger.pid, process_started_at=1.0)
            assert home.json("ps") == []
            with home.serve() as served:
                assert home.json("ps") == []
                assert served.chat("a").status_code == 200
            assert home.run("stop", "--all").returncode == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_server_whose_row_tells_another_start_time_is_left_to_its_user(home: Home) -> None:
    """Neither adopted nor stopped, by whoever looks; shown, until it is stopped by name."""
    pid = killed(home)
    doctor_row(home, process_started_at=1.0)
    for _ in range(2):
        with home.serve() as served:
            assert served.chat("a").status_code == 200
            rows = {row["pid"]: row["state"] for row in home.json("ps")}
            assert len(rows) == 2
            assert rows.pop(pid) == "disputed"
        assert lives(pid)
        assert f"(pid {pid}) bears the id of a server of a" in home.run("doctor").stdout
    assert "server.orphan_left" in (home.path.parent / "serve.log").read_text()
    with home.serve():
        assert home.run("stop", "a").stdout == "stopped a\n"
        assert home.json("ps") == []
    assert not lives(pid)


def test_two_servers_of_one_model_are_shown_kept_to_adopted_and_stopped(home: Home) -> None:
    """The second comes with the second stream; a session finds its own again."""
    more = "concurrency_limit = 1\nreplicas = 2\n"
    home.configure(stub_config("a", chunks=10_000_000, extra="[pool]\nmax_size = 3\n") + more, "a")
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "go on"}]}
    mine = {"X-Session-Id": "mine"}

    def in_flight() -> dict[int, int]:
        return {row["pid"]: row["in_flight"] for row in home.json("ps")}

    def stream(client: httpx.Client, **how: Any) -> AbstractContextManager[httpx.Response]:
        return client.stream("POST", "/v1/chat/completions", json=body, **how)

    with home.serve() as served, served.client() as client:
        with stream(client):
            (first,) = in_flight()
            with stream(client, headers=mine):
                both = in_flight()
                (second,) = both.keys() - {first}
                assert both == {first: 1, second: 1}
        while set(in_flight().values()) != {0}:
            pass
        with stream(client, headers=mine):
            assert in_flight() == {first: 0, second: 1}
        served.process.kill()
        served.process.wait(20)
    with home.serve():
        assert in_flight() == {first: 0, second: 0}
        assert home.run("stop", "a").stdout == "stopped a\n"
        assert home.json("ps") == []


def test_orphans_are_stopped_where_that_is_set(home: Home) -> None:
    """Healthy or not."""
    with home.serve() as served:
        served.chat("a")
        (row,) = home.json("ps")
        served.process.kill()
        served.process.wait(20)
    home.configure(stub_config("a", extra='[gateway]\norphans = "stop"\n'))
    with home.serve() as served:
        assert home.json("ps") == []
        assert not lives(row["pid"])
        assert served.chat("a").status_code == 200


def test_orphan_whose_settings_have_changed_is_not_adopted(home: Home) -> None:
    """It would not be what the user asks for today."""
    with home.serve() as served:
        served.chat("a")
        (row,) = home.json("ps")
        served.process.kill()
        served.process.wait(20)
    home.configure(stub_config("a") + 'extra_args = ["changed"]\n')
    with home.serve() as served:
        assert not lives(row["pid"])
        assert served.chat("a").status_code == 200


def test_server_started_by_hand_is_used_and_outlives_the_gateway(home: Home) -> None:
    """Adopted as pinned: the gateway asks it, does not evict it, and leaves it running."""
    assert home.run("start", "a").returncode == 0
    (row,) = home.json("ps")
    with home.serve() as served:
        assert served.chat("a").status_code == 200
        (same,) = home.json("ps")
        assert (same["pid"], same["owner"]) == (row["pid"], "standalone")
    assert lives(row["pid"])
    assert home.run("stop", "a").returncode == 0
    assert not lives(row["pid"])


def test_model_added_while_the_gateway_serves_is_served(home: Home, tmp_path: Path) -> None:
    """No restart: another process's change is seen."""
    from gglib.services.demo.tiny_gguf import tiny_gguf

    path = tmp_path / "late.gguf"
    path.write_bytes(tiny_gguf())
    with home.serve() as served:
        assert served.chat("late").status_code == 404
        home.run("model", "add", str(path))
        with served.client() as client:
            assert client.get("/v1/models/late").status_code == 200


def test_doctor_tells_what_it_has_looked_at(home: Home) -> None:
    """As text and as data; a healthy place exits with 0."""
    done = home.run("doctor")
    assert done.returncode == 0, done.stdout
    for subject in ("versions", "configuration", "data directory", "models", "engine", "gateway"):
        assert subject in done.stdout
    findings = home.json("doctor")
    assert {finding["state"] for finding in findings} <= {"ok", "warning"}


def test_doctor_finds_what_is_broken(home: Home) -> None:
    """Each finding with its fix."""
    (home.path / "a.gguf").unlink()
    home.path.chmod(0o755)
    done = home.run("doctor")
    assert "the file of a is gone" in done.stdout
    assert f"chmod 700 {home.path}" in done.stdout
    home.configure("[gatewy]\n")
    done = home.run("doctor")
    assert (done.returncode, "gatewy" in done.stdout) == (1, True)


def test_second_signal_ends_a_gateway_that_still_answers(home: Home) -> None:
    """Ctrl-C twice: an answer that nobody wants to wait for is broken off."""
    home.configure(stub_config("a", load_s=0.0, chunks=10_000_000), "a")
    with home.serve() as served, served.client() as client:
        body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "go on"}]}
        with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            next(stream.iter_lines())
            served.process.send_signal(signal.SIGINT)
            # Two signals at once may arrive as one: send until it has ended.
            for _ in range(8):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    served.process.wait(1)
                    break
                served.process.send_signal(signal.SIGINT)
            assert served.process.returncode == 0
    assert home.json("ps") == []


def test_interrupted_command_ends_with_130(home: Home) -> None:
    """Ctrl-C is no error."""
    home.configure(stub_config("a", load_s=60.0), "a")
    from support.commands import gglib

    process = subprocess.Popen(
        [gglib(), "start", "a"], env=dict(home.environment), stderr=subprocess.PIPE, text=True
    )
    while not home.run("logs", "a").stdout:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert home.json("ps") == []
