"""``gglib model scan`` and ``verify``: what lies on the disks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import anyio
from cyclopts import Parameter

from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.output import print_json, printable, say, tell
from gglib.cli.progress import progress
from gglib.cli.scan_steps import on_step, tell_steps
from gglib.domain.model import Model
from gglib.errors import GglibError, InvalidRequest, NodeUnreachable, NotConfigured
from gglib.services.catalog_steps import ScanStep
from gglib.services.verifying import FileState, Verification, VerifiedFile

__all__ = ["scan", "verify"]


def scan(
    *folders: str,
    prune: Annotated[bool, Parameter(negative=())] = False,
    runner: str | None = None,
    common: Common = COMMON,
) -> int:
    """Add every model in a folder and all below it, where it lies.

    Models that are known already are read again only if their files have changed.

    Parameters
    ----------
    folders
        Where to look.
    prune
        Remove models whose files are gone.
    runner
        The folders are on the machine of this runner's servers, which will serve the models.
    """
    if not folders:
        raise InvalidRequest("name a folder to scan, such as ~/models", "folders")

    async def work() -> Sequence[ScanStep]:
        async with compose_for(common) as parts:
            models = await parts.models()
            with progress("scanning", shown=not common.json) as bar:
                return await models.scan(
                    folders, runner=runner, prune=prune, on_step=on_step(bar, common)
                )

    steps = anyio.run(work)
    tell_steps(steps, common, "scan with --prune")
    return 0


def verify(
    *names: str,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    accept: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> int:
    """Read models' files whole, and compare them with what they were.

    The first time, their SHA-256 is recorded. Exits with 1 if a file is not what it was. Files
    of another machine are read there.

    Parameters
    ----------
    names
        The models.
    all_
        Every model that is not declared in the settings file.
    accept
        Take the files as they are now.
    """
    if bool(names) == all_:
        raise InvalidRequest("name the models to verify, or say --all", "names")

    failures: list[GglibError] = []

    async def work() -> list[Verification]:
        async with compose_for(common) as parts:
            models = await parts.models()
            found: list[Model] = (
                [each for each in await models.list() if each.origin.kind != "config"]
                if all_
                else [(await models.resolve(name)).model for name in names]
            )
            total, done, told = sum(model.size_bytes for model in found), 0, []
            with progress("verifying", in_bytes=True, shown=not common.json) as bar:
                for model in found:

                    def on_bytes(count: int, name: str = model.name) -> None:
                        nonlocal done
                        done += count
                        # The size of what is declared for another machine is not known here.
                        bar(done, max(done, total), name)

                    try:
                        told.append(
                            await models.verify(model.name, accept=accept, on_bytes=on_bytes)
                        )
                    except (NodeUnreachable, NotConfigured) as error:
                        # What lies on other machines is verified all the same.
                        failures.append(error)
            return told

    verified = anyio.run(work)
    if common.json:
        print_json([_described(each) for each in verified])
    else:
        for each in verified:
            _say_verified(each)
    if failures:
        raise failures[0]
    return 0 if all(each.intact for each in verified) else 1


def _described(verified: Verification) -> dict[str, Any]:
    return {
        "model": verified.model.name,
        "intact": verified.intact,
        "files": [
            {
                "path": str(file.path),
                "state": file.state.value,
                "sha256": file.sha256,
                "recorded_sha256": file.recorded_sha256,
                "reason": file.reason,
            }
            for file in verified.files
        ],
    }


_SENTENCES = {
    FileState.INTACT: "intact",
    FileState.RECORDED: "recorded now",
    FileState.CHANGED: "was written to since it was added; --accept takes it as it is",
    FileState.DAMAGED: "is damaged: its bytes are others than those on record; fetch it again",
    FileState.MISSING: "is not there",
    FileState.UNREADABLE: "cannot be read",
}


def _say_verified(verified: Verification) -> None:
    for file in verified.files:
        line = f"{verified.model.name}: {printable(str(file.path))} {_sentence(file)}"
        (say if file.state in (FileState.INTACT, FileState.RECORDED) else tell)(line)


def _sentence(file: VerifiedFile) -> str:
    said = _SENTENCES[file.state]
    if file.state is FileState.UNREADABLE:
        return f"{said}: {file.reason}"
    return f"{said} (sha256 {file.sha256})" if file.sha256 else said
