"""What servers have of the far machine's memory, as its own commands tell it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import anyio

from gglib.domain.handle import ProcessHandle
from gglib.domain.server_memory import ServerMemory
from gglib.ports.clock import Clock
from gglib_adapters.runners.ssh.far_devices import FarDevices
from gglib_adapters.runners.ssh.link import Link

__all__ = ["FarMemory", "memory_in"]

_KIB, _MIB = 2**10, 2**20
#: All servers are asked after at once: then each of them need not be.
_FRESH_S = 1.0


class FarMemory:
    """Asks for all servers in one round trip, and for those it told not again for a second."""

    __slots__ = ("_asking", "_clock", "_devices", "_link", "_read_at", "_told")

    def __init__(self, link: Link, devices: FarDevices, clock: Clock) -> None:
        self._link = link
        self._devices = devices
        self._clock = clock
        self._asking = anyio.Lock()
        self._told: Mapping[str, tuple[int, ServerMemory]] = {}
        self._read_at = 0.0

    async def of(self, handle: ProcessHandle) -> ServerMemory | None:
        """Return what a server has; ``None`` if it does not run.

        Raises:
            NodeUnreachable: the machine cannot be asked.
        """
        async with self._asking:
            is_old = self._clock.monotonic() - self._read_at > _FRESH_S
            if is_old or handle.server_id not in self._told:
                said = await self._link.ask("gglib_memory")
                names = {}
                if "\napp " in said:
                    devices = await self._devices.all()
                    names = {each.identifier: each.name for each in devices if each.identifier}
                self._told, self._read_at = memory_in(said, names), self._clock.monotonic()
            pid, memory = self._told.get(handle.server_id, (None, None))
            return memory if pid is not None and pid == handle.pid else None

    def forget(self, handle: ProcessHandle) -> None:
        """Forget what a server had that has ended."""
        self._told = {key: told for key, told in self._told.items() if key != handle.server_id}


def memory_in(said: str, names: Mapping[str, str]) -> dict[str, tuple[int, ServerMemory]]:
    """Return what the lines of ``gglib_memory`` tell: by server id, its first pid and its memory.

    ``names``: of GPUs, by their UUIDs. One on which no process of a server can be seen, as from
    within a container, is left out of what that server has.
    """
    servers: dict[str, list[int]] = {}
    owners: dict[str, str] = {}
    accelerators: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for line in said.splitlines():
        word, _, rest = line.partition(" ")
        match word, rest.replace(",", " ").split():
            case "server", [server_id, *numbers] if len(numbers) > 2 and all(
                map(_is_number, numbers)
            ):
                servers[server_id] = [int(each) for each in numbers]
                owners.update(dict.fromkeys(numbers[2:], server_id))
            case "app", [pid, gpu, mebibytes] if _is_number(mebibytes):
                if pid in owners and gpu in names:
                    accelerators[owners[pid]][names[gpu]] += int(mebibytes) * _MIB
            case _:
                pass
    return {
        server_id: (
            pid,
            ServerMemory(
                resident_bytes=resident * _KIB,
                # They are not read at one moment.
                own_bytes=min(own, resident) * _KIB,
                accelerators=accelerators[server_id],
            ),
        )
        for server_id, (resident, own, pid, *_) in servers.items()
    }


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 15
