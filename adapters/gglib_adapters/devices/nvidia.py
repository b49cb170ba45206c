"""NVIDIA GPUs, by NVML: found where there are any, and never in the way.

Source: NVML API reference, R580; CUDA C++ Programming Guide 13, "CUDA Environment Variables".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import attrs

from gglib.domain.device import Device

__all__ = ["Gpus", "NvidiaGpus", "load_nvml"]

_KIND = "cuda"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"
_MAX_GPUS = 1024
_MAX_REASON = 200


def load_nvml() -> Any:
    """Return NVML's Python binding.

    Raises:
        ImportError: it is not installed.
    """
    return import_module("pynvml")


@attrs.frozen
class Gpus:
    """GPUs that could be read, and a line for each that could not."""

    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Gpu:
    """A GPU, or a MIG instance of one. ``memory`` is total and free bytes."""

    index: int
    identifier: str | None
    description: str
    memory: tuple[int, int] | None
    problem: str = ""
    instance: bool = False

    def is_meant_by(self, entry: str) -> bool:
        """Return whether an entry of ``CUDA_VISIBLE_DEVICES`` names it."""
        if entry.isdecimal() and entry.isascii():
            return int(entry) == self.index
        return bool(entry) and (self.identifier or "").startswith(entry)


class NvidiaGpus:
    """The GPUs that an engine would see if it were started here now.

    ``survey`` raises nothing: a missing library or driver, a failing call, a GPU that has
    fallen off the bus become notes. NVML is loaded at the first survey, and loaded again
    after it has failed.
    """

    def __init__(
        self, environ: Mapping[str, str], load: Callable[[], Any] = load_nvml, *, wait_s: float = 5
    ) -> None:
        self._environ = environ
        self._load = load
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._nvml: Any = None

    def survey(self) -> Gpus:
        """Return the GPUs, read now. For a worker thread: a driver may take its time."""
        # A driver that hangs takes one thread with it, and not one for each survey.
        if not self._lock.acquire(timeout=self._wait_s):
            return Gpus(notes=(f"NVIDIA GPUs: the driver has not answered for {self._wait_s:g} s",))
        try:
            return self._survey()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the driver, unless somebody waits for it."""
        if self._lock.acquire(blocking=False):
            try:
                self._shut_down()
            finally:
                self._lock.release()

    def _survey(self) -> Gpus:
        try:
            nvml = self._opened()
        except ImportError:
            return Gpus(notes=("NVIDIA GPUs: not looked for; nvidia-ml-py is not installed",))
        except Exception as error:
            return Gpus(notes=(f"NVIDIA GPUs: none found ({_reason(error)})",))
        try:
            count = min(int(nvml.nvmlDeviceGetCount()), _MAX_GPUS)
        except Exception as error:
            self._shut_down()
            return Gpus(notes=(f"NVIDIA GPUs: cannot be counted ({_reason(error)})",))
        found = [gpu for index in range(count) for gpu in _read(nvml, index)]
        return self._seen(found)

    def _opened(self) -> Any:
        if self._nvml is None:
            nvml = self._load()
            nvml.nvmlInit()
            self._nvml = nvml
        return self._nvml

    def _shut_down(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except Exception:
                return  # There is nobody left who could mind.

    def _seen(self, found: list[_Gpu]) -> Gpus:
        """Return what CUDA would show of ``found``, numbered as it would."""
        entries = self._environ.get(_VISIBLE)
        notes = []
        if entries is None:
            # Of a GPU in MIG mode a process sees one instance, unless it names another.
            seen = [gpu for number, gpu in enumerate(found) if not _is_later(found, number)]
        else:
            seen = _chosen(found, entries)
            if len(seen) < len(found):
                notes.append(f"NVIDIA GPUs: {_VISIBLE}={entries} shows {len(seen)}")
        if self._order_is_unsure(seen, entries):
            unsure = "they differ, and CUDA may number them otherwise"
            notes.append(f"NVIDIA GPUs: {unsure}; set {_ORDER}=PCI_BUS_ID")
        devices = []
        for number, gpu in enumerate(seen):
            name = f"{_KIND}{number}"
            if gpu.memory is None:
                notes.append(f"{name} ({gpu.description}): left out; {gpu.problem}")
                continue
            total, free = gpu.memory
            devices.append(
                Device(
                    name=name,
                    kind=_KIND,
                    total_bytes=total,
                    free_bytes=max(0, min(free, total)),
                    description=gpu.description,
                    identifier=gpu.identifier,
                )
            )
        return Gpus(tuple(devices), tuple(notes))

    def _order_is_unsure(self, seen: list[_Gpu], entries: str | None) -> bool:
        if self._environ.get(_ORDER) == "PCI_BUS_ID":
            return False
        by_number = entries is None or any(each.strip().isdecimal() for each in entries.split(","))
        return by_number and len({gpu.description for gpu in seen}) > 1


def _is_later(found: list[_Gpu], number: int) -> bool:
    gpu = found[number]
    return gpu.instance and any(
        other.instance and other.index == gpu.index for other in found[:number]
    )


def _chosen(found: list[_Gpu], entries: str) -> list[_Gpu]:
    """Return those that ``CUDA_VISIBLE_DEVICES`` names, in its order.

    The first entry that names none, or one twice, hides itself and all that follow.
    """
    seen: list[_Gpu] = []
    for entry in entries.split(","):
        named = next((gpu for gpu in found if gpu.is_meant_by(entry.strip())), None)
        if named is None or named in seen:
            break
        seen.append(named)
    return seen


def _read(nvml: Any, index: int) -> list[_Gpu]:
    """Return the GPU of that number, or its MIG instances."""
    description, identifier = "an NVIDIA GPU", None
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        description = _text(nvml.nvmlDeviceGetName(handle))
        identifier = _text(nvml.nvmlDeviceGetUUID(handle))
        instances = _instances(nvml, handle, index, description)
        if instances is not None:
            return instances
        memory, problem = _memory(nvml, handle), ""
    except Exception as error:
        memory, problem = None, f"it cannot be read ({_reason(error)})"
    return [
        _Gpu(
            index=index,
            identifier=identifier,
            description=description,
            memory=memory,
            problem=problem,
        )
    ]


def _instances(nvml: Any, handle: Any, index: int, description: str) -> list[_Gpu] | None:
    """Return a GPU's MIG instances; ``None`` if it is not divided."""
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
        if not current:
            return None
        most = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except Exception:
        return None  # Most GPUs cannot be divided, and say so by failing.
    found = []
    for number in range(min(most, _MAX_GPUS)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            identifier = _text(nvml.nvmlDeviceGetUUID(instance))
            memory = _memory(nvml, instance)
        except Exception:  # noqa: S112 - numbers without an instance are many
            continue
        found.append(
            _Gpu(
                index=index,
                identifier=identifier,
                description=f"{description}, MIG instance",
                memory=memory,
                instance=True,
            )
        )
    if found:
        return found
    problem = "it is in MIG mode, and has no instance that can be read"
    return [
        _Gpu(index=index, identifier=None, description=description, memory=None, problem=problem)
    ]


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    total, free = int(memory.total), int(memory.free)
    if total <= 0 or free < 0:
        raise ValueError(f"it says {total} bytes, {free} free")
    return total, free


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())[:_MAX_REASON]
    return words or type(error).__name__
