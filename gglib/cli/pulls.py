"""``gglib model search``, ``quants``, ``pull``, ``downloads`` and ``outdated``: models of a hub."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import Parameter
from cyclopts.validators import Number

from gglib import errors
from gglib.cli.gateway_client import GatewayClient, find_gateway
from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import print_event, print_json, print_table, printable, say, size, tell
from gglib.cli.progress import Bar, progress
from gglib.domain.hub import RepositoryReference, parse_reference
from gglib.errors import GglibError

if TYPE_CHECKING:
    from gglib.services.pulling.service import PullService

__all__ = ["downloads", "fetch", "outdated", "pull", "quants", "search"]

_DONE, _FAILED, _CANCELLED, _CURRENT = "done", "failed", "cancelled", "current"


def search(
    text: str,
    /,
    *,
    limit: Annotated[int, Parameter(alias="-n", validator=Number(gte=1, lte=100))] = 20,
    common: Common = COMMON,
) -> None:
    """Search the hub for repositories with GGUF models, the most fetched first.

    Parameters
    ----------
    text
        Words of a repository's name.
    limit
        The most to show.
    """

    async def work() -> list[dict[str, Any]]:
        async with _pulls_for(common) as pulls:
            found = await pulls.search(text, limit=limit)
            return [
                {
                    "repository": each.repository,
                    "downloads": each.downloads,
                    "likes": each.likes,
                    "updated_at": each.updated_at,
                    "gated": each.gated,
                }
                for each in found
            ]

    found = anyio.run(work)
    if common.json:
        print_json(found)
    elif not found:
        say(f"nothing found for '{printable(text)}'; try fewer words")
    else:
        print_table(
            ("REPOSITORY", "DOWNLOADS", "LIKES", "UPDATED", "GATED"),
            [
                (
                    each["repository"],
                    str(each["downloads"]),
                    str(each["likes"]),
                    printable(str(each["updated_at"] or "-"))[:10],
                    "yes" if each["gated"] else "-",
                )
                for each in found
            ],
        )


def quants(repository: str, /, *, revision: str | None = None, common: Common = COMMON) -> None:
    """List a repository's quantizations, their sizes, and whether they fit into this machine.

    Parameters
    ----------
    repository
        OWNER/NAME, as `gglib model search` shows it.
    revision
        A branch, a tag or a commit; else the main branch.
    """
    reference = parse_reference(repository, revision)

    async def work() -> list[dict[str, Any]]:
        from gglib.domain.quantizations import best_quantization

        async with _pulls_for(common) as pulls:
            offers = await pulls.offers(reference)
            fitting = {offer.quantization.stem for offer in offers if offer.fits}
            best = best_quantization(
                [offer.quantization for offer in offers], lambda each: each.stem in fitting
            )
            return [
                {
                    "quantization": offer.quantization.name,
                    "size_bytes": offer.quantization.size_bytes,
                    "files": [file.path for file in offer.quantization.files],
                    "fits": offer.fits,
                    "fit": offer.fit.line,
                    "default": offer.quantization == best,
                }
                for offer in offers
            ]

    found = anyio.run(work)
    if common.json:
        print_json(found)
    elif not found:
        say(f"{reference.repository} has no whole GGUF model")
    else:
        print_table(
            ("QUANTIZATION", "SIZE", "FILES", "FITS", ""),
            [
                (
                    each["quantization"],
                    size(each["size_bytes"]),
                    str(len(each["files"])),
                    "yes" if each["fits"] else "no",
                    "pulled unless you name another" if each["default"] else "",
                )
                for each in found
            ],
        )


def pull(
    model: str,
    /,
    *,
    revision: str | None = None,
    name: str | None = None,
    mmproj: Annotated[bool | None, Parameter(name="--with-mmproj", negative="--no-mmproj")] = None,
    common: Common = COMMON,
) -> int:
    """Fetch a model from the Hugging Face hub, verify it, and add it to the catalog.

    What was interrupted goes on where it was. A model that is there already is brought up to
    date; if it is the newest, nothing is done.

    Parameters
    ----------
    model
        OWNER/NAME, for the best quantization that fits; or OWNER/NAME:QUANTIZATION.
    revision
        A branch, a tag or a commit; else the main branch.
    name
        What requests call it; else the file's name.
    mmproj
        Fetch a projector, too, for images; else if there is one.
    """
    last = fetch(parse_reference(model, revision), common, name=name, mmproj=mmproj)
    if not common.json:
        _say_end(last)
    return 0 if last.get("state") in {_DONE, _CURRENT} else 1


def fetch(
    reference: RepositoryReference,
    common: Common,
    *,
    name: str | None = None,
    mmproj: bool | None = None,
) -> dict[str, Any]:
    """Fetch a model, showing how far it is; return how that ended, as ``describe_pull`` tells it.

    Raises:
        HubError, PullFailed, NoSpace: it cannot be fetched.
    """

    async def work() -> dict[str, Any]:
        last: dict[str, Any] = {}
        with progress(reference.repository, in_bytes=True, shown=not common.json) as bar:
            async with (
                compose_for(common) as parts,
                aclosing(_course(parts, reference, name, mmproj)) as course,
            ):
                async for last in course:
                    _tell_progress(last, bar, as_json=common.json)
        return last

    try:
        return anyio.run(work)
    except KeyboardInterrupt:
        tell("stopped; what is there is kept, the same command goes on from it")
        raise


def downloads(*, cancel: str | None = None, common: Common = COMMON) -> None:
    """List pulls that wait, are under way, or have ended lately; or give one up.

    Parameters
    ----------
    cancel
        The id of a pull to give up. What came of it is deleted.
    """

    async def work() -> Any:
        async with compose_for(common) as parts:
            if (gateway := find_gateway(parts.settings.data_dir)) is not None:
                async with GatewayClient(gateway) as client:
                    if cancel is not None:
                        return await client.cancel_download(cancel)
                    return await client.downloads()
            pulls = await parts.pulls()
            if cancel is not None:
                given_up = await pulls.cancel(cancel)
                return {"id": given_up.id, "state": given_up.state.value}
            from gglib.services.pulling.views import describe_pull

            return [describe_pull(each) for each in await pulls.list()]

    told = anyio.run(work)
    if common.json:
        print_json(told)
    elif cancel is not None:
        given_up = told["state"] == _CANCELLED
        say(f"cancelled {cancel}" if given_up else f"{cancel} had ended before: {told['state']}")
    elif not told:
        say("no downloads; `gglib model pull OWNER/NAME` begins one")
    else:
        print_table(
            ("ID", "STATE", "MODEL", "FROM", "DONE", "OF", "NOTE"),
            [
                (
                    each["id"],
                    each["state"],
                    each["model"],
                    f"{each['repository']}:{each['quantization']}",
                    size(each["done_bytes"]),
                    size(each["total_bytes"]),
                    printable(each["error"] or each["note"] or "-"),
                )
                for each in told
            ],
        )


def outdated(*, common: Common = COMMON) -> None:
    """List the models whose repositories have newer files; `gglib model pull` fetches those."""

    async def work() -> list[dict[str, Any]]:
        async with _pulls_for(common) as pulls:
            return [
                {
                    "model": each.model.name,
                    "repository": each.model.origin.repository,
                    "revision": each.model.origin.revision,
                    "newest": each.commit,
                    "size_bytes": each.size_bytes,
                    "reason": each.reason,
                }
                for each in await pulls.outdated()
            ]

    found = anyio.run(work)
    if common.json:
        print_json(found)
    elif not found:
        say("every model that was pulled is the newest")
    else:
        print_table(
            ("MODEL", "FROM", "HAS", "NEWEST", "TO FETCH"),
            [
                (
                    each["model"],
                    each["repository"],
                    str(each["revision"])[:12],
                    str(each["newest"] or "-")[:12],
                    printable(each["reason"]) if each["reason"] else size(each["size_bytes"]),
                )
                for each in found
            ],
        )


@asynccontextmanager
async def _pulls_for(common: Common) -> AsyncIterator[PullService]:
    async with compose_for(common) as parts:
        yield await parts.pulls()


async def _course(
    parts: Any, reference: RepositoryReference, name: str | None, mmproj: bool | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Tell how a pull goes, through a live gateway or alone."""
    if (gateway := find_gateway(parts.settings.data_dir)) is not None:
        async with GatewayClient(gateway) as client:
            wanted = reference.repository
            if reference.quantization is not None:
                wanted += f":{reference.quantization}"
            asked = {
                "model": wanted,
                "revision": reference.revision,
                "name": name,
                "mmproj": mmproj,
            }
            async with aclosing(client.pull(asked)) as told:
                async for each in told:
                    yield each
                    if each["state"] == _FAILED:
                        raise _failure_of(each)
        return
    async with aclosing(_alone(await parts.pulls(), reference, name, mmproj)) as told:
        async for each in told:
            yield each


def _failure_of(told: dict[str, Any]) -> GglibError:
    """Return the error that a gateway tells of, so that the exit status is as it is alone."""
    kind = getattr(errors, str(told["error_kind"]), None)
    if isinstance(kind, type) and issubclass(kind, errors.HubError):
        return kind(told["error"])
    return errors.PullFailed(told["error"])


async def _alone(
    pulls: PullService, reference: RepositoryReference, name: str | None, mmproj: bool | None
) -> AsyncGenerator[dict[str, Any], None]:
    from gglib.domain.pull import PullRequest
    from gglib.services.pulling.planning import AlreadyThere
    from gglib.services.pulling.views import describe_current, describe_pull

    asked = await pulls.enqueue(PullRequest(reference=reference, name=name, mmproj=mmproj))
    if isinstance(asked, AlreadyThere):
        yield describe_current(asked.model)
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pulls.work, asked.id)
        async with aclosing(pulls.follow(asked.id)) as statuses:
            async for status in statuses:
                yield describe_pull(status)
        tasks.cancel_scope.cancel()
    failure = pulls.failure(asked.id)
    if failure is not None:
        raise failure


def _tell_progress(told: dict[str, Any], bar: Bar, *, as_json: bool) -> None:
    if as_json:
        print_event({"event": told["state"], **told})
    elif told["state"] != _CURRENT:
        bar(told["done_bytes"], told["total_bytes"], printable(told["note"] or told["state"]))


def _say_end(last: dict[str, Any]) -> None:
    match last["state"]:
        case "current":
            at = str(last["revision"])[:12]
            say(f"{last['model']} is there already, and is the newest ({last['repository']}, {at})")
        case "done":
            verb = "updated" if last["updates"] else "pulled"
            came = f"{last['quantization']}, {size(last['total_bytes'])}"
            say(f"{verb} {last['model']} ({came}) from {last['repository']}")
        case "cancelled":
            tell("cancelled by somebody; what came was deleted")
