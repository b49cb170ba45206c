"""The memory of the far machine, as its own commands tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import anyio
import attrs

from gglib.domain.device import CPU, Device
from gglib.errors import NodeUnreachable
from gglib.ports.clock import Clock
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import Step

__all__ = ["FarDevices", "boot_id_in", "devices_in"]

_KIB, _MIB = 2**10, 2**20
#: What is this young need not be asked for again.
_FRESH_S = 2.0
#: What version 1 of control groups says for "no limit" is the largest page-aligned number.
_NO_LIMIT = 1 << 62


class FarDevices:
    """Asks for all devices in one round trip, and not again for two seconds."""

    __slots__ = ("_asking", "_clock", "_found", "_link", "_machine", "_node", "_read_at")

    def __init__(self, link: Link, clock: Clock, *, node: str) -> None:
        self._link = link
        self._clock = clock
        self._node = node
        self._asking = anyio.Lock()
        self._found: tuple[Device, ...] = ()
        self._machine: str | None = None
        self._read_at = 0.0

    async def all(self) -> Sequence[Device]:
        """Return the machine's own memory, then its GPUs.

        Raises:
            NodeUnreachable: it cannot be asked.
        """
        return (await self._read())[0]

    async def machine_id(self) -> str | None:
        """Return the boot id of its kernel, if it tells one.

        Raises:
            NodeUnreachable: it cannot be asked.
        """
        return (await self._read())[1]

    async def _read(self) -> tuple[tuple[Device, ...], str | None]:
        async with self._asking:
            if not self._found or self._clock.monotonic() - self._read_at > _FRESH_S:
                said = await self._link.ask("gglib_devices")
                found = devices_in(said)
                if not found:
                    raise NodeUnreachable(
                        self._node,
                        Step.SHELL,
                        "it does not tell its memory",
                        "is its /proc/meminfo hidden?",
                    )
                self._found, self._read_at = found, self._clock.monotonic()
                self._machine = boot_id_in(said)
            return self._found, self._machine


def boot_id_in(said: str) -> str | None:
    """Return the boot id that the lines of ``gglib_devices`` tell."""
    told = next((line.split()[1:] for line in said.splitlines() if line.startswith("boot ")), [])
    return told[0] if told else None


def devices_in(said: str) -> tuple[Device, ...]:
    """Return the devices that the lines of ``gglib_devices`` tell; none without memory."""
    sizes: dict[str, int] = {}
    limits: list[tuple[int, int]] = []
    gpus: list[_Gpu] = []
    visible: str | None = None
    for line in said.splitlines():
        word, _, rest = line.partition(" ")
        numbers = [int(each) for each in rest.split() if _is_number(each)]
        if word in ("MemTotal", "MemAvailable") and numbers:
            sizes[word] = numbers[0] * _KIB
        elif word == "limit" and numbers and numbers[0] < _NO_LIMIT:
            limits.append((numbers[0], numbers[1] if len(numbers) > 1 else 0))
        elif word == "visible":
            visible = rest
        elif word == "gpu":
            gpus += _gpu_in(rest)
    if len(sizes) < 2:
        return ()
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    description = ""
    for limit, used in limits:
        if limit < total:
            total, description = limit, "limited by a control group"
        free = min(free, max(0, limit - used))
    own = Device(
        name=CPU,
        kind=CPU,
        total_bytes=total,
        free_bytes=min(free, total),
        description=description,
    )
    return (own, *_numbered(gpus if visible is None else _shown(gpus, visible)))


@attrs.frozen
class _Gpu:
    index: str
    identifier: str
    is_divided: bool
    total: str
    free: str
    description: str


def _gpu_in(line: str) -> list[_Gpu]:
    words = [word.strip() for word in line.split(",", 5)]
    if len(words) < 6 or not _is_number(words[0]):
        return []
    index, identifier, division, total, free, name = words
    return [_Gpu(index, identifier, division == "Enabled", total, free, name)]


def _shown(gpus: Sequence[_Gpu], visible: str) -> list[_Gpu]:
    """Return those that ``CUDA_VISIBLE_DEVICES`` names there, in its order."""
    shown: list[_Gpu] = []
    for entry in map(str.strip, visible.split(",")):
        named = [
            gpu
            for gpu in gpus
            if entry and (entry == gpu.index or gpu.identifier.startswith(entry))
        ]
        # The first entry that names none hides itself and all that follow.
        if not named or named[0] in shown:
            break
        shown.append(named[0])
    return shown


def _numbered(gpus: Sequence[_Gpu]) -> Iterator[Device]:
    """Yield those whose memory is told. Of a divided one it is that of all its instances."""
    for number, gpu in enumerate(gpus):
        if gpu.is_divided or not _is_number(gpu.total) or not _is_number(gpu.free):
            continue
        total = int(gpu.total) * _MIB
        yield Device(
            name=f"cuda{number}",
            kind="cuda",
            total_bytes=total,
            free_bytes=min(int(gpu.free) * _MIB, total),
            description=gpu.description,
            identifier=gpu.identifier or None,
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 20
