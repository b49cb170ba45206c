"""``gglib why``: a model's place in the gateway's memory, in sentences."""

from __future__ import annotations

from typing import Any

import anyio

from gglib.cli.gateway_client import GatewayClient, require_gateway
from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import duration, print_json, say

__all__ = ["why"]

_DONE = {
    "started": "started",
    "ready": "became ready",
    "taken_over": "was found running, and taken over",
    "evicted": "was evicted for '{because}'",
    "unloaded": "was unloaded by hand",
    "changed": "was ended, since the model was changed or removed",
    "expired": "was unloaded, since nobody had used it for its ttl_s",
    "called_off": "was no longer started, since nobody waited for it any more",
    "failed": "failed to start: {because}",
    "died": "ended by itself",
    "unhealthy": "no longer answered, and was ended",
    "away": "was out of reach",
    "back": "could be reached again",
    "refused": "was refused: {because}",
}


def why(name: str, /, *, common: Common = COMMON) -> None:
    """Say why a model is in memory, why it was evicted, or why it waits.

    Parameters
    ----------
    name
        The model.
    """

    async def work() -> dict[str, Any]:
        async with compose_for(common) as parts:
            model = (await (await parts.models()).resolve(name)).model
            async with GatewayClient(require_gateway(parts.settings.data_dir)) as client:
                return await client.why(model.name)

    told = anyio.run(work)
    if common.json:
        print_json(told)
        return
    for sentence in sentences(told["model"], told["story"]):
        say(sentence)


def sentences(model: str, story: dict[str, Any] | None) -> list[str]:
    """Return what is to say of a model."""
    if story is None:
        return [f"nobody has asked for {model} since the gateway started"]
    pinned = ", pinned" if story["pinned"] else ""
    on = f" on {story['servers']} of {story['replicas']} servers" if story["replicas"] > 1 else ""
    where = f"is {story['phase']}{on}{pinned}" if story["phase"] else "is not in memory"
    said = [f"{model} {where}: {story['in_flight']} in flight, {story['queued']} waiting"]
    if story["waited_s"] is not None:
        said.append(f"the next one has waited for {duration(story['waited_s'])}")
    if story["blocked_by"]:
        names = ", ".join(story["blocked_by"])
        until_s = story["blocked_until_s"]
        ends = (
            f"they take no new requests in {duration(until_s)}"
            if until_s is not None and until_s > 0
            else "they end what they are answering"
        )
        said.append(f"in its way: {names}; {ends}")
    if story["claimed_by"]:
        left = duration(max(0.0, story["yields_in_s"]))
        said.append(
            f"{story['claimed_by']} waits for its place; in {left} it takes no new requests"
        )
    if len(story["runners"]) > 1:
        said += [_on_runner(each) for each in story["runners"]]
    for event in story["events"]:
        done, colon, reason = _DONE[event["what"]].partition(":")
        on = f" on {event['runner']}" if event["runner"] else ""
        done = f"{done}{on}{colon}{reason}".format(because=event["because"])
        if event["what"] == "started" and event["because"]:
            done += f" with {event['because']}"
        said.append(f"{duration(event['ago_s'])} ago it {done}")
    return said


def _on_runner(story: dict[str, Any]) -> str:
    servers = ", ".join(story["servers"]) or "no server"
    why_not = story["why_not"]
    return f"on {story['runner']}: {servers}" + (f"; {why_not}" if why_not else "")
