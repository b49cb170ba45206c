"""What another machine says of servers on record there, where anybody may have written it."""

from __future__ import annotations

from typing import Any

import pytest

from gglib_adapters.runners.ssh.far_servers import FarServers
from gglib_adapters.runners.ssh.link import FarMachine

pytestmark = pytest.mark.anyio


class Told:
    """A line over which the machine says one thing."""

    def __init__(self, said: str) -> None:
        self._said = said

    async def machine(self) -> FarMachine:
        """See ``Link``."""
        return FarMachine(ticks_per_s=100, line="", data_dir="/far")

    async def ask(self, function: str, *arguments: str) -> str:
        """See ``Link``."""
        del function, arguments
        return self._said


def servers(said: str) -> FarServers:
    """Return the servers of a machine that says so."""
    link: Any = Told(said)
    return FarServers(link, node="box", runner="box", orphan_ttl_s=None)


@pytest.mark.parametrize("words", ["running x 1 1", "running 1 -1 1", "ended 1 1 1 none"])
async def test_record_without_sense_is_nobodys(words: str) -> None:
    """It names no process, and hides no other server."""
    state = await servers(words + "\n").state("01M7ZT2WNWG1M12YYY5RX0M003")
    assert (state.running, state.pid) == (False, None)
    assert await servers(f"01M7ZT2WNWG1M12YYY5RX0M003 {words}\nno handle\n").all() == []
