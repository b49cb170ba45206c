"""``gglib start``, ``stop``, ``ps``, ``logs``: through a live gateway, or alone."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from gglib.cli.gateway_client import GatewayClient, find_gateway
from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import duration, print_json, print_table, say, size
from gglib.domain.ownership import OwnerKind, ServerRecord
from gglib.errors import GglibError, NodeUnreachable, NotRunning
from gglib.services.ownership import disputed_process
from gglib.services.server_logs import ServerLogs

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.gateway.presence import Presence
    from gglib.ports.context import RunnerSet

__all__ = ["logs", "ps", "start", "stop"]

#: What only a gateway knows of its servers.
_OF_THE_GATEWAY = (
    "state",
    "in_flight",
    "queued",
    "memory_bytes",
    "memory_observed_bytes",
    "ttl_left_s",
)
#: The state of a server whose machine cannot be reached.
_AWAY = "away"
_HEADINGS = (
    *("MODEL", "STATE", "PORT", "PID", "UP", "ENGINE", "RUNNER", "OWNER", "IN FLIGHT", "QUEUED"),
    *("MEMORY", "TTL LEFT"),
)


def start(name: str, /, *, common: Common = COMMON) -> None:
    """Start a model's server, and return when it is ready.

    With a gateway running, the gateway loads it; without one, it runs on by itself until
    `gglib stop`.

    Parameters
    ----------
    name
        The model.
    """

    async def work() -> dict[str, Any]:
        async with compose_for(common) as parts:
            model = (await (await parts.models()).resolve(name)).model
            if (gateway := find_gateway(parts.settings.data_dir)) is not None:
                async with GatewayClient(gateway) as client:
                    await client.load(model.name)
                return {"model": model.name, "base_url": gateway.address, "by": "gateway"}
            runners = await parts.runners()
            for record in await (await parts.registry()).list():
                if record.config.model_name != model.name:
                    continue
                running = False
                with suppress(NodeUnreachable):  # another of its runners may start one
                    running = await _is_running(runners, record)
                if running:
                    assert record.handle is not None
                    return {**_row(record), "base_url": record.handle.base_url, "already": True}
            server = await (await parts.serving(OwnerKind.STANDALONE)).start(model)
            return {
                "model": model.name,
                "base_url": server.handle.base_url,
                "by": "standalone",
                "pid": server.handle.pid,
                "server_id": server.handle.server_id,
                "api_key": server.api_key,
                "load_s": server.load_s,
            }

    started = anyio.run(work)
    if common.json:
        print_json(started)
    elif started.get("already"):
        say(f"{started['model']} is running already at {started['base_url']}/v1")
    else:
        say(f"{started['model']} is ready at {started['base_url']}/v1")
        if started.get("api_key"):
            say(f"its API key: {started['api_key']}")


def stop(
    name: str | None = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    force: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Stop a model's server; what it is answering is finished first.

    Parameters
    ----------
    name
        The model.
    all_
        Every server of this data directory.
    force
        Cut what is being answered.
    """

    async def work() -> list[str]:
        async with compose_for(common) as parts:
            wanted = None
            if not all_:
                wanted = (await (await parts.models()).resolve(name or "")).model.name
            stopped: list[str] = []
            gateway = find_gateway(parts.settings.data_dir)
            if gateway is not None:
                stopped += await _stop_in_gateway(gateway, wanted, force)
            stopped += await _stop_alone(parts, wanted, gateway)
            if wanted is not None and not stopped:
                raise NotRunning(wanted)
            return stopped

    if name is None and not all_:
        from gglib.errors import InvalidRequest

        raise InvalidRequest("name the model to stop, or say --all")
    stopped = anyio.run(work)
    if common.json:
        print_json({"stopped": stopped})
    elif stopped:
        for model in dict.fromkeys(stopped):
            say(f"stopped {model}")
    else:
        say("nothing is running")


def ps(*, common: Common = COMMON) -> None:
    """Show what is running."""

    async def work() -> list[dict[str, Any]]:
        async with compose_for(common) as parts:
            rows = {}
            runners = await parts.runners()
            for record in await (await parts.registry()).list():
                state = await _state(runners, record)
                if state is not None:
                    rows[record.server_id] = {**_row(record), "state": state}
            if (gateway := find_gateway(parts.settings.data_dir)) is not None:
                async with GatewayClient(gateway) as client:
                    for seen in await client.running():
                        if seen["server_id"] in rows:
                            row = rows[seen["server_id"]]
                            state = row["state"] if row["state"] == _AWAY else seen["state"]
                            row.update({key: seen[key] for key in _OF_THE_GATEWAY})
                            row["state"] = state
            return list(rows.values())

    rows = anyio.run(work)
    if common.json:
        print_json(rows)
        return
    if not rows:
        say("nothing is running")
        return
    print_table(
        _HEADINGS,
        [_cells(row) for row in rows],
    )


def logs(
    name: str,
    /,
    *,
    lines: Annotated[int, Parameter(alias="-n", validator=Number(gte=0))] = 50,
    follow: Annotated[bool, Parameter(alias="-f", negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Show what a model's engine has printed.

    Parameters
    ----------
    name
        The model.
    lines
        How many of the last lines.
    follow
        Go on with new lines as they come, until the server ends or Ctrl-C.
    """

    async def work() -> None:
        async with compose_for(common) as parts:
            model = (await (await parts.models()).resolve(name)).model
            output = await ServerLogs(await parts.registry(), await parts.runners()).latest(
                model.name
            )
            async for line in output.lines(tail=lines, follow=follow):
                say(line)

    anyio.run(work)


async def _is_running(runners: RunnerSet, record: ServerRecord) -> bool:
    runner = runners.get(record.runner)
    if runner is None or record.handle is None:
        return False
    return await runner.is_running(record.handle)


async def _state(runners: RunnerSet, record: ServerRecord) -> str | None:
    """Return the state of a server on record, as far as can be seen; ``None``: it is gone."""
    if record.runner not in runners:
        # It may run all the same: nothing here can tell.
        return "unknown"
    try:
        if await _is_running(runners, record):
            return str(record.state)
        if await disputed_process(record, runners[record.runner]) is not None:
            return "disputed"
    except NodeUnreachable:
        return _AWAY
    return None


async def _stop_in_gateway(gateway: Presence, wanted: str | None, force: bool) -> list[str]:
    stopped = []
    async with GatewayClient(gateway) as client:
        for model in dict.fromkeys(row["model"] for row in await client.running()):
            if wanted in (None, model):
                await client.unload(model, force=force)
                stopped.append(model)
    return stopped


async def _stop_alone(
    parts: Composition, wanted: str | None, gateway: Presence | None
) -> list[str]:
    """Stop servers that run by themselves, and what a dead gateway has left.

    Raises:
        GglibError: one cannot be stopped; the others are, all the same.
    """
    stopped: list[str] = []
    failures: list[GglibError] = []
    serving = await parts.serving(OwnerKind.STANDALONE)
    runners = await parts.runners()
    for record in await (await parts.registry()).list():
        if wanted not in (None, record.config.model_name):
            continue
        is_the_gateways = record.owner.kind is OwnerKind.GATEWAY and gateway is not None
        disputed = None
        try:
            was_running = await _is_running(runners, record)
            if not was_running and record.runner in runners:
                disputed = await disputed_process(record, runners[record.runner])
        except NodeUnreachable as error:
            # The gateway ends its own when it can.
            if not is_the_gateways:
                failures.append(error)
            continue
        if is_the_gateways and disputed is None:
            continue
        # Whose a disputed one is, its user has just said.
        handle = disputed or record.handle
        try:
            await serving.stop_record(attrs.evolve(record, handle=handle))
        except GglibError as error:
            failures.append(error)
            continue
        if was_running or disputed is not None:
            stopped.append(record.config.model_name)
    if failures:
        raise failures[0]
    return stopped


def _row(record: ServerRecord) -> dict[str, Any]:
    handle = record.handle
    return {
        "model": record.config.model_name,
        "state": str(record.state),
        "port": handle.port if handle else None,
        "pid": handle.pid if handle else None,
        "engine": record.engine,
        "runner": record.runner,
        "owner": str(record.owner.kind),
        "server_id": record.server_id,
        "started_at": handle.started_at if handle else record.created_at,
        **dict.fromkeys(_OF_THE_GATEWAY[1:]),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    def shown(key: str) -> str:
        value = row[key]
        return "-" if value is None else str(value)

    return [
        row["model"],
        row["state"],
        shown("port"),
        shown("pid"),
        duration(time.time() - row["started_at"]),
        row["engine"],
        row["runner"],
        row["owner"],
        shown("in_flight"),
        shown("queued"),
        _memory(row),
        "-" if row["ttl_left_s"] is None else duration(row["ttl_left_s"]),
    ]


def _memory(row: dict[str, Any]) -> str:
    """Return what a server is held to need, and the most that it was seen to have."""
    needed, seen = row["memory_bytes"], row["memory_observed_bytes"]
    if not needed:
        return "-"
    estimated = size(sum(needed.values()))
    return f"{estimated}, seen {size(seen)}" if seen is not None else estimated
