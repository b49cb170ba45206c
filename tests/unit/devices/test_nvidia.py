"""NVIDIA GPUs, by a binding that fails in every way the real one can."""

# ruff: noqa: N802 - the names are the binding's
from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pynvml
import pytest

from gglib_adapters.devices.nvidia import NvidiaGpus
from gglib_adapters.devices.system import SystemDeviceInventory

GIB = 2**30


class FakeNvml:
    """Has GPUs: each a name, and its total and free bytes, an error, or MIG instances."""

    def __init__(self, *gpus: tuple[str, Any]) -> None:
        self.gpus = list(gpus)
        self.opened = self.closed = 0

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, int | None]:
        return index, None

    def nvmlDeviceGetName(self, handle: tuple[int, int | None]) -> bytes:
        return self.gpus[handle[0]][0].encode()

    def nvmlDeviceGetUUID(self, handle: tuple[int, int | None]) -> str:
        index, instance = handle
        return f"GPU-{index}abc" if instance is None else f"MIG-{index}-{instance}"

    def nvmlDeviceGetMigMode(self, handle: tuple[int, int | None]) -> list[int]:
        if isinstance(self.gpus[handle[0]][1], dict):
            return [1, 1]
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: tuple[int, int | None]) -> int:
        del handle
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(
        self, handle: tuple[int, int | None], number: int
    ) -> tuple[int, int]:
        if number not in self.gpus[handle[0]][1]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle[0], number

    def nvmlDeviceGetMemoryInfo(self, handle: tuple[int, int | None]) -> SimpleNamespace:
        index, instance = handle
        memory = self.gpus[index][1]
        if instance is not None:
            memory = memory[instance]
        if isinstance(memory, Exception):
            raise memory
        return SimpleNamespace(total=memory[0], free=memory[1])


def gpus(nvml: object, **environ: str) -> NvidiaGpus:
    """Return the GPUs of a binding."""
    return NvidiaGpus(environ, lambda: nvml)


def names(found: NvidiaGpus) -> list[tuple[str, str | None]]:
    """Return names and UUIDs."""
    return [(each.name, each.identifier) for each in found.survey().devices]


PAIR = (("H200", (141 * GIB, 100 * GIB)), ("H200", (141 * GIB, 141 * GIB)))


def test_gpus_are_told_with_their_memory() -> None:
    """Numbered as CUDA numbers them, read anew each time, opened once."""
    nvml = FakeNvml(*PAIR)
    found = gpus(nvml)
    first, second = found.survey().devices
    assert (first.name, first.kind, first.description) == ("cuda0", "cuda", "H200")
    assert (first.total_bytes, first.free_bytes) == (141 * GIB, 100 * GIB)
    assert (second.name, second.identifier) == ("cuda1", "GPU-1abc")
    nvml.gpus[0] = ("H200", (141 * GIB, 7))
    assert found.survey().devices[0].free_bytes == 7
    found.close()
    assert (nvml.opened, nvml.closed) == (1, 1)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("1,0", [("cuda0", "GPU-1abc"), ("cuda1", "GPU-0abc")]),
        ("GPU-1", [("cuda0", "GPU-1abc")]),
        ("", []),
        ("-1", []),
        ("0,7,1", [("cuda0", "GPU-0abc")]),
        ("1,1", [("cuda0", "GPU-1abc")]),
        ("NoDevFiles", []),
        (" 1 ", [("cuda0", "GPU-1abc")]),
    ],
)
def test_hidden_gpus_are_not_told(visible: str, seen: list[tuple[str, str]]) -> None:
    """An engine that is started here does not see them either; a note says so."""
    found = gpus(FakeNvml(*PAIR), CUDA_VISIBLE_DEVICES=visible)
    assert names(found) == seen
    notes = found.survey().notes
    assert any("CUDA_VISIBLE_DEVICES" in note for note in notes) is (len(seen) < 2)


def test_missing_binding_is_a_note() -> None:
    """Nobody needs it without a GPU."""

    def missing() -> None:
        raise ImportError("pynvml")

    survey = NvidiaGpus({}, missing).survey()
    assert (survey.devices, "nvidia-ml-py is not installed" in survey.notes[0]) == ((), True)


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_NO_PERMISSION,
    ],
)
def test_missing_driver_is_a_note_and_looked_for_again(code: int) -> None:
    """It may be loaded later."""
    nvml = FakeNvml(*PAIR)
    failing: list[Exception] = [pynvml.NVMLError(code)]

    def init() -> None:
        if failing:
            raise failing.pop()

    nvml.nvmlInit = init  # type: ignore[method-assign]
    found = gpus(nvml)
    (note,) = found.survey().notes
    assert note.startswith("NVIDIA GPUs: none found (")
    assert len(found.survey().devices) == 2


def test_driver_that_breaks_is_opened_again() -> None:
    """After an update of the driver all calls fail until then."""
    nvml = FakeNvml(*PAIR)
    found = gpus(nvml)
    found.survey()
    count, failing = nvml.nvmlDeviceGetCount, [pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)]

    def broken() -> int:
        if failing:
            raise failing.pop()
        return count()

    nvml.nvmlDeviceGetCount = broken  # type: ignore[method-assign]
    assert "cannot be counted" in found.survey().notes[0]
    assert len(found.survey().devices) == 2
    assert (nvml.opened, nvml.closed) == (2, 1)


def test_lost_gpu_is_left_out_and_the_others_keep_their_names() -> None:
    """It has fallen off the bus; its number stays its own."""
    lost = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    found = gpus(FakeNvml(("H200", lost), PAIR[1]))
    assert names(found) == [("cuda1", "GPU-1abc")]
    (note,) = found.survey().notes
    assert note.startswith("cuda0 (H200): left out; it cannot be read (GPU is lost")


@pytest.mark.parametrize("memory", [(0, 0), (GIB, -1), (None, None), ("x", 1)])
def test_gpu_that_says_nonsense_is_left_out(memory: tuple[Any, Any]) -> None:
    """No number is made up for it."""
    assert names(gpus(FakeNvml(("odd", memory)))) == []


def test_free_memory_beyond_the_total_is_cut() -> None:
    """The two are not read at one moment."""
    (device,) = gpus(FakeNvml(("GPU", (GIB, 2 * GIB)))).survey().devices
    assert device.free_bytes == GIB


def test_divided_gpu_is_its_first_instance_or_the_named_one() -> None:
    """CUDA shows a process one instance of it."""
    instances = {0: (20 * GIB, 20 * GIB), 3: (10 * GIB, 9 * GIB)}
    nvml = FakeNvml(("H200", instances))
    (first,) = gpus(nvml).survey().devices
    assert (first.identifier, first.total_bytes) == ("MIG-0-0", 20 * GIB)
    assert first.description == "H200, MIG instance"
    assert names(gpus(nvml, CUDA_VISIBLE_DEVICES="MIG-0-3")) == [("cuda0", "MIG-0-3")]


def test_divided_gpu_without_instances_is_a_note() -> None:
    """Nothing can be started on it."""
    survey = gpus(FakeNvml(("H200", {}))).survey()
    assert survey.devices == ()
    assert "no instance" in survey.notes[0]


def test_different_gpus_have_a_note_on_their_order() -> None:
    """CUDA puts the fastest first unless it is told otherwise."""
    nvml = FakeNvml(PAIR[0], ("T4", (GIB, GIB)))
    assert "PCI_BUS_ID" in gpus(nvml).survey().notes[0]
    assert gpus(nvml, CUDA_DEVICE_ORDER="PCI_BUS_ID").survey().notes == ()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_driver_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """The machine's memory is told all the same, at the next survey too."""
    nvml, release = FakeNvml(*PAIR), threading.Event()
    nvml.nvmlInit = release.wait  # type: ignore[method-assign,assignment]
    found = NvidiaGpus({}, lambda: nvml, wait_s=0.01)
    inventory = SystemDeviceInventory(tmp_path, found, wait_s=0.05)
    try:
        with anyio.fail_after(20):
            for _ in range(2):
                survey = await inventory.survey()
                assert [device.name for device in survey.devices] == ["cpu"]
                assert "has not answered" in survey.notes[0]
        found.close()
    finally:
        release.set()
