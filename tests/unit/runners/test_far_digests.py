"""How a SHA-256 is waited for that another machine computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from gglib.domain.file_mark import FileMark
from gglib.errors import GglibError, InvalidModelFile, NodeUnreachable, NotConfigured
from gglib.ports.far_files import FarFile
from gglib_adapters.runners.ssh import far_digests
from gglib_adapters.runners.ssh.far_digests import far_sha256
from gglib_adapters.runners.ssh.link import Link

pytestmark = pytest.mark.anyio
FILE = FarFile(path=Path("/srv/m.gguf"), mark=FileMark(size_bytes=12, mtime_ns=0))
SUM = "0123456789abcdef" * 4
AWAY = NodeUnreachable("box", "connect", "no answer", "wait")


class PaperLink:
    """Answers questions for the state from a list, whose last item it repeats."""

    def __init__(self, begun: str, *states: str | NodeUnreachable) -> None:
        self.begun = begun
        self.states = self._forever(states)
        self.asked: list[str] = []

    @staticmethod
    def _forever(states: Sequence[str | NodeUnreachable]) -> Iterator[str | NodeUnreachable]:
        yield from states
        while True:
            yield states[-1]

    async def ask(self, function: str, *arguments: str) -> str:
        """Answer as ``far_digest.sh`` would."""
        del arguments
        self.asked.append(function)
        await anyio.lowlevel.checkpoint()
        if function == "gglib_digest":
            return self.begun
        if function == "gglib_forget_digest":
            return ""
        state = next(self.states)
        if isinstance(state, NodeUnreachable):
            raise state
        return state


async def summed(link: PaperLink, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the sum, or raise."""
    return await far_sha256(cast(Link, link), FILE, on_bytes, node="box")


async def test_progress_is_told_and_nothing_is_left_there() -> None:
    """Each byte once, however often it is asked."""
    told: list[int] = []
    states = ("going 0\n", "going 5\n", "going 5\n", "going 9\n", f"ended 0 {SUM}  -\n")
    link = PaperLink("going\n", *states)
    assert await summed(link, told.append) == SUM
    assert told == [5, 4, 3]
    assert link.asked[-1] == "gglib_forget_digest"


@pytest.mark.parametrize("said", [f"SHA2-256(stdin)= {SUM}", f"{SUM} *stdin", f"{SUM}  -"])
async def test_sum_is_found_in_what_any_tool_says(said: str) -> None:
    """Of openssl, of any version, and of coreutils."""
    assert await summed(PaperLink("going", f"ended 0 {said}\n")) == SUM


@pytest.mark.parametrize(
    ("begun", "state", "kind", "said"),
    [
        ("no-tool", "", NotConfigured, "none of sha256sum, shasum and openssl: install one there"),
        ("failed no space left", "", NodeUnreachable, "no space left"),
        ("going", "ended 2 ", InvalidModelFile, "cannot be read on box; check its permissions"),
        ("going", "ended 143 ", InvalidModelFile, "ended too soon, with status 143"),
        ("going", "ended 0 nonsense", InvalidModelFile, "cannot be read"),
        ("going", "unknown", InvalidModelFile, "was the machine started anew"),
    ],
)
async def test_what_goes_wrong_there_is_told(
    begun: str, state: str, kind: type[GglibError], said: str
) -> None:
    """In the words of who has to mend it."""
    with pytest.raises(kind, match=said):
        await summed(PaperLink(begun, state))


async def test_line_that_is_cut_for_a_moment_ends_nothing() -> None:
    """The machine reads on meanwhile."""
    assert await summed(PaperLink("going", "going 5", AWAY, AWAY, f"ended 0 {SUM}")) == SUM


async def test_machine_that_stays_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up by itself what nobody asks for."""
    monkeypatch.setattr(far_digests, "_AWAY_S", 0.01)
    with pytest.raises(NodeUnreachable):
        await summed(PaperLink("going", "going 5", AWAY))


async def test_reading_that_gets_no_further_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the file, a byte takes only so long."""
    monkeypatch.setattr(far_digests, "_STALL_S", 0.03)
    link = PaperLink("going", "going 5")
    with pytest.raises(InvalidModelFile, match="does its disk hang"):
        await summed(link)
    assert link.asked[-1] == "gglib_forget_digest"


async def test_who_stops_waiting_ends_it_there() -> None:
    """Cancelled, nothing goes on."""
    link: Any = PaperLink("going", "going 5")
    with anyio.move_on_after(0.05):
        await summed(link)
    assert link.asked[-1] == "gglib_forget_digest"
