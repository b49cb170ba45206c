"""What the gateway answers itself, over real sockets."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.gateway import RawClient, SocketGateway, open_socket_gateway

from gglib.errors import StartFailed
from gglib.services.routing.planners import CountPlanner

TOKEN = "Authorization: Bearer admin-token\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


async def get(client: RawClient, path: str) -> tuple[int, Any]:
    """Send a GET; return the status and what the JSON says."""
    await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = await client.read()
    assert answer.whole
    assert answer.header("content-type") == "application/json"
    return answer.status, json.loads(answer.body)


async def admin(client: RawClient, path: str) -> tuple[int, Any]:
    """Ask for something that the administrator may do."""
    await client.post("", path=path, extra=TOKEN)
    answer = await client.read()
    return answer.status, json.loads(answer.body)


async def running(gateway: SocketGateway) -> list[dict[str, Any]]:
    """Return what /running tells."""
    async with gateway.connect() as client:
        status, told = await get(client, "/running")
    assert status == 200
    found: list[dict[str, Any]] = told["running"]
    return found


async def test_models_are_listed_by_name_with_their_state() -> None:
    """OpenAI's object, and ours beside it."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"model":"n"}')
        await client.read()
        status, listed = await get(client, "/v1/models")
    assert (status, listed["object"]) == (200, "list")
    assert [model["id"] for model in listed["data"]] == ["m", "n", "one"]
    assert [model["gglib"]["state"] for model in listed["data"]] == ["stopped", "ready", "stopped"]
    assert listed["data"][0] == {
        "id": "m",
        "object": "model",
        "created": 0,
        "owned_by": "gglib",
        "gglib": {
            "state": "stopped",
            "aliases": ["m-alias"],
            "profiles": ["m:cold"],
            "capabilities": [],
            "context_size": None,
            "size_bytes": 1,
        },
    }


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("m", "m"),
        ("m-alias", "m"),
        ("org/sub/four:7b", "org/sub/four:7b"),
        ("org%2Fsub%2Ffour%3A7b", "org/sub/four:7b"),
        ("f%C3%BCnf%20x", "fünf x"),
    ],
)
async def test_model_is_shown_by_any_of_its_names(asked: str, found: str) -> None:
    """Slashes, colons and spaces in a name, as they are or escaped."""
    async with open_socket_gateway(more_models=("org/sub/four:7b", "fünf x")) as gateway:
        async with gateway.connect() as client:
            status, model = await get(client, f"/v1/models/{asked}")
    assert (status, model["id"]) == (200, found)


async def test_unknown_model_is_404_with_close_names() -> None:
    """In OpenAI's form."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        status, told = await get(client, "/v1/models/ones")
    assert status == 404
    assert (told["error"]["code"], told["error"]["param"]) == ("model_not_found", "model")
    assert "'one'" in told["error"]["message"]


async def test_probe_tells_that_it_lives_and_takes_requests() -> None:
    """Two routes, as orchestrators ask."""
    async with open_socket_gateway(api_keys=("k",)) as gateway, gateway.connect() as client:
        assert await get(client, "/health") == (200, {"status": "ok"})
        assert await get(client, "/ready") == (200, {"status": "ready"})


async def test_resident_is_shown_from_its_loading_to_its_end() -> None:
    """Its server once there is one, and who waits for it meanwhile."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert await running(gateway) == []
        gateway.serving.hold = anyio.Event()
        await client.post('{"model":"m"}')
        await gateway.serving.start_asked.wait()
        (row,) = await running(gateway)
        assert (row["model"], row["state"], row["queued"]) == ("m", "starting", 1)
        assert (row["pid"], row["server_id"], row["load_s"]) == (None, None, None)
        gateway.serving.hold.set()
        await client.read()
        (row,) = await running(gateway)
        assert (row["state"], row["in_flight"], row["queued"]) == ("ready", 0, 0)
        assert (row["pid"], row["server_id"], row["engine"]) == (1, "server-1", "scripted")
        assert row["port"] == gateway.upstream.port
        assert (row["slots_total"], row["context_size"]) == (None, None)


@pytest.mark.parametrize("name", ["m", "m-alias", "org/four"])
async def test_model_is_loaded_and_unloaded_by_name(name: str) -> None:
    """Answered when it is done; what is loaded already stays."""
    async with open_socket_gateway(more_models=("org/four",)) as gateway:
        async with gateway.connect() as client:
            for _ in range(2):
                status, told = await admin(client, f"/admin/models/{name}/load")
                assert (status, [row["state"] for row in told["running"]]) == (200, ["ready"])
            assert len(gateway.serving.starts) == 1
            real = gateway.serving.starts[0]
            status, told = await admin(client, f"/admin/models/{name}/unload")
            assert (status, told) == (200, {"model": real, "state": "stopped"})
            assert gateway.serving.stops == [real]
            assert await running(gateway) == []


async def test_unload_waits_for_what_is_in_flight() -> None:
    """The stream comes to its end first."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"model":"m","do":"gated_stream"}')
        await gateway.upstream.reach("streaming").wait()
        async with gateway.connect() as other:
            await other.post("", path="/admin/models/m/unload", extra=TOKEN)
            while gateway.router.residents()[0].closing is None:
                await anyio.lowlevel.checkpoint()
            assert (await running(gateway))[0]["in_flight"] == 1
            assert gateway.serving.stops == []
            gateway.upstream.gate("go on").set()
            assert (await client.read()).body.endswith(b"data: 1\n\n")
            assert (await other.read()).status == 200
        assert gateway.serving.stops == ["m"]


async def test_drain_serves_who_waits_and_then_unloads() -> None:
    """The one in flight, and the one in the queue."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post('{"model":"one","do":"gated_stream"}')
        await gateway.upstream.reach("streaming").wait()
        async with gateway.connect() as second, gateway.connect() as other:
            await second.post('{"model":"one"}')
            while not gateway.router.queue():
                await anyio.lowlevel.checkpoint()
            (waiting,) = (await told_queue(gateway))["queue"]
            assert (waiting["position"], waiting["model"], waiting["priority"]) == (0, "one", 0)
            await other.post("", path="/admin/models/one/drain", extra=TOKEN)
            while gateway.router.residents()[0].closing is None:
                await anyio.lowlevel.checkpoint()
            gateway.upstream.gate("go on").set()
            assert (await client.read()).body.endswith(b"data: 1\n\n")
            assert (await second.read()).status == 200
            assert (await other.read()).status == 200
        assert gateway.serving.stops == ["one"]
        assert len(gateway.serving.starts) == 1


async def told_queue(gateway: SocketGateway) -> Any:
    """Return what ``/admin/queue`` says."""
    async with gateway.connect() as client:
        await client.send(f"GET /admin/queue HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n")
        return json.loads((await client.read()).body)


async def test_pinned_model_keeps_its_place_and_why_tells_so() -> None:
    """The other one is refused, with the reason, until it is unpinned."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert await admin(client, "/admin/models/m/pin") == (200, {"model": "m", "pinned": True})
        await admin(client, "/admin/models/m/load")
        assert (await running(gateway))[0]["pinned"]
        status, told = await admin(client, "/admin/models/n/load")
        assert (status, told["error"]["code"]) == (503, "no_room")
        for name, phase, events in (("m", "ready", ["started", "ready"]), ("n", None, ["refused"])):
            await client.send(
                f"GET /admin/why/{name}-alias HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n"
            )
            why = json.loads((await client.read()).body)
            assert (why["model"], why["story"]["phase"]) == (name, phase)
            assert [event["what"] for event in why["story"]["events"]][:2] == events
        await admin(client, "/admin/models/m/unpin")
        status, _ = await admin(client, "/admin/models/n/load")
        assert status == 200


@pytest.mark.parametrize(
    ("path", "status", "code", "part"),
    [
        ("/admin/models/m/unload", 409, "not_running", "'m' is not running"),
        ("/admin/models/nobody/load", 404, "model_not_found", "nobody"),
        ("/admin/models/m/explode", 400, None, "'explode'"),
        ("/admin/models/m", 404, "model_not_found", ""),
        ("/admin/models/m/unload?force=perhaps", 400, None, ""),
        ("/admin/nothing", 404, "not_found", "POST /admin/nothing"),
        ("/v1/models", 405, None, ""),
    ],
)
async def test_what_cannot_be_done_is_told(
    path: str, status: int, code: str | None, part: str
) -> None:
    """In OpenAI's form, and nothing is started."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        found, told = await admin(client, path)
        assert gateway.serving.starts == []
    assert (found, told["error"]["code"]) == (status, code)
    assert part in told["error"]["message"]


async def test_load_that_fails_is_told_with_the_reason() -> None:
    """The engine's last line, not a bare 500."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.serving.failure = StartFailed("m", 1, ("out of memory",))
        status, told = await admin(client, "/admin/models/m/load")
    assert (status, told["error"]["code"]) == (503, "start_failed")
    assert "out of memory" in told["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/admin/models/m/load",
        "//admin/models/m/load",
        "/%61dmin/models/m/load",
        "/admin%2Fmodels/m/load",
        "/./admin/models/m/load",
        "/x/../admin/models/m/load",
        "/admin/models/m/load/",
        "/ADMIN/models/m/load",
        "http://localhost/admin/models/m/load",
    ],
)
async def test_admin_route_stays_shut_however_it_is_spelled(path: str) -> None:
    """What the router takes for an admin's path, the doors do, too."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await client.post("", path=path)
        assert (await client.read()).status in {400, 401, 404}
        assert gateway.serving.starts == []


async def test_bug_is_logged_and_told_without_its_details(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client learns where to look, and no more."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        monkeypatch.setattr(gateway.router, "residents", lambda: 1 / 0)
        status, told = await get(client, "/running")
    assert (status, told["error"]["code"]) == (500, "internal_error")
    assert "division" not in json.dumps(told)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_two_models_are_relayed_at_once_where_both_fit() -> None:
    """Each to its own server; both are shown, and each is unloaded by itself."""
    async with open_socket_gateway(planner=CountPlanner(2)) as gateway:
        async with gateway.connect() as first, gateway.connect() as second:
            await first.post('{"model":"m","do":"gated_stream"}')
            await gateway.upstream.reach("streaming").wait()
            await second.post('{"model":"n"}')
            assert (await second.read()).status == 200
            rows = {row["model"]: row for row in await running(gateway)}
            assert {name: row["in_flight"] for name, row in rows.items()} == {"m": 1, "n": 0}
            assert rows["m"]["server_id"] != rows["n"]["server_id"]
            status, _ = await admin(second, "/admin/models/n/unload")
            assert status == 200
            gateway.upstream.gate("go on").set()
            assert (await first.read()).body.endswith(b"data: 1\n\n")
            assert [row["model"] for row in await running(gateway)] == ["m"]
        assert gateway.serving.stops == ["n"]


async def test_model_with_a_ready_and_a_starting_server_is_ready() -> None:
    """Both are shown as running; the list of models shows what a client may expect."""
    async with open_socket_gateway(planner=CountPlanner(2), replicas=2) as gateway:
        async with gateway.connect() as first, gateway.connect() as second:
            await first.post('{"model":"one","do":"gated_stream"}')
            await gateway.upstream.reach("streaming").wait()
            gateway.serving.hold = anyio.Event()
            await second.post('{"model":"one"}')
            while len(gateway.serving.starts) < 2:
                await anyio.lowlevel.checkpoint()
            assert [row["state"] for row in await running(gateway)] == ["ready", "starting"]
            async with gateway.connect() as third:
                await third.send(b"GET /v1/models/one HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert json.loads((await third.read()).body)["gglib"]["state"] == "ready"
            gateway.serving.hold.set()
            assert (await second.read()).status == 200
            gateway.upstream.gate("go on").set()
            assert (await first.read()).status == 200
