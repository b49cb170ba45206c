"""Pulling models through the gateway: asked for, followed as an event stream, listed, given up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import anyio
import attrs
import msgspec
from litestar import delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody
from litestar.types import ASGIApp

from gglib.domain.hub import parse_reference
from gglib.domain.pull import Pull, PullRequest
from gglib.errors import GglibError, InvalidRequest, InvalidValue
from gglib.gateway.answers import Cancelled, Download, Downloads
from gglib.gateway.event_stream import EventStream, server_sent
from gglib.services.pulling.planning import AlreadyThere
from gglib.services.pulling.service import PullService
from gglib.services.pulling.views import describe_current, describe_pull

__all__ = ["PULL_ROUTES", "Pulling", "keep_pulling"]

#: How long the queue rests after what should not have happened.
_REST_S = 5.0


@attrs.frozen(kw_only=True)
class Pulling:
    """What the handlers work with."""

    pulls: PullService
    ending: Callable[[], Awaitable[object]]
    """Returns when the gateway is about to end: a pull goes on at its next start."""


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    revision: str | None = None
    name: str | None = None
    mmproj: bool | None = None


def _pulling(state: State) -> Pulling:
    pulling: Pulling = state["pulling"]
    return pulling


@post("/admin/models/pull")
async def pull_model(state: State, data: JSONBody[_Asked]) -> ASGIApp:
    """Fetch a model from the hub, and tell how far it is until it is there.

    Whoever leaves is not waited for: the pull goes on.
    """
    pulling = _pulling(state)
    try:
        request = PullRequest(
            reference=parse_reference(data.model, data.revision), name=data.name, mmproj=data.mmproj
        )
    except InvalidValue as error:
        raise InvalidRequest(str(error), error.field) from None
    asked = await pulling.pulls.enqueue(request)
    return EventStream(_course(pulling.pulls, asked), until=pulling.ending)


@get("/admin/models/downloads")
async def downloads(state: State) -> Downloads:
    """List what is queued, under way and has ended lately, the oldest first."""
    found = [describe_pull(each) for each in await _pulling(state).pulls.list()]
    return {"downloads": [cast(Download, each) for each in found]}


@delete("/admin/models/downloads/{pull_id:str}", status_code=200)
async def cancel_download(state: State, pull_id: FromPath[str]) -> Cancelled:
    """Give up a pull: what came of it is deleted. One that has ended stays as it is."""
    pull = await _pulling(state).pulls.cancel(pull_id)
    return {"id": pull.id, "state": pull.state}


PULL_ROUTES = (pull_model, downloads, cancel_download)


async def _course(pulls: PullService, asked: Pull | AlreadyThere) -> AsyncGenerator[bytes, None]:
    if isinstance(asked, AlreadyThere):
        yield server_sent("current", describe_current(asked.model))
        return
    async with aclosing(pulls.follow(asked.id)) as statuses:
        async for status in statuses:
            yield server_sent(status.pull.state.value, describe_pull(status))


async def keep_pulling(pulls: PullService, log_error: Callable[[BaseException], None]) -> None:
    """Work off the queue for ever; what goes wrong with it harms nothing else."""
    while True:
        try:
            await pulls.work()
        except (Exception, BaseExceptionGroup) as error:
            if not isinstance(error, GglibError | OSError):
                log_error(error)
            await anyio.sleep(_REST_S)
