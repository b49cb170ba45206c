"""Memory and GPUs: what models are loaded into, and whether drivers and tools agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from gglib.cli.doctor.findings import BROKEN, OK, WARNING, Finding
from gglib.cli.output import size
from gglib.errors import GglibError

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.domain.device import DeviceSurvey

__all__ = ["look_at_devices"]

_TIMEOUT_S = 15.0
#: What NVIDIA's kernel module tells of itself, and AMD's.
_NVIDIA, _AMD = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")
_MISMATCH = "version mismatch"


async def look_at_devices(parts: Composition) -> list[Finding]:
    """Return every device with its memory, and why one that should be there is not."""
    survey = await (await parts.devices()).survey()
    findings = [
        Finding(
            "devices",
            OK,
            f"{device.name}: {size(device.free_bytes)} free of {size(device.total_bytes)}"
            + (f" ({device.description})" if device.description else ""),
        )
        for device in survey.devices
    ]
    if survey.cpu is None:
        findings.append(Finding("devices", BROKEN, "the machine's memory cannot be read"))
    return [*findings, *await _nvidia(survey), *_amd(survey), *await _unused(parts, survey)]


async def _nvidia(survey: DeviceSurvey) -> list[Finding]:
    """Return what NVML says, beside what nvidia-smi says."""
    gpus = [device for device in survey.devices if device.kind == "cuda"]
    tool = shutil.which("nvidia-smi")
    # That there is none is no fault on a machine that was never meant to have one.
    meant = tool is not None or await anyio.Path(_NVIDIA).exists()
    notes = [note for note in survey.notes if meant or "none found" not in note]
    findings = [
        Finding("devices", WARNING, note, _fix_of(note) if note.startswith("NVIDIA") else None)
        for note in notes
    ]
    if tool is None:
        return findings
    said, failed = await _ask(tool)
    if failed:
        findings.append(Finding("devices", WARNING, f"nvidia-smi: {said}", _fix_of(said)))
    elif (seen := len(re.findall("^GPU ", said, re.MULTILINE))) > len(
        gpus
    ) and "CUDA_VISIBLE_DEVICES" not in os.environ:
        detail = f"nvidia-smi sees {seen} GPUs, gglib {len(gpus)}"
        fix = "pip install --upgrade nvidia-ml-py; the lines above say more"
        findings.append(Finding("devices", WARNING, detail, fix))
    return findings


async def _ask(tool: str) -> tuple[str, bool]:
    """Return what ``nvidia-smi -L`` says, and whether it failed."""
    try:
        with anyio.fail_after(_TIMEOUT_S):
            done = await anyio.run_process(
                [tool, "-L"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
    except TimeoutError:
        return f"it has not answered for {_TIMEOUT_S:g} s", True
    except OSError as error:
        return error.strerror or str(error), True
    said = done.stdout.decode(errors="replace")
    return (said, False) if done.returncode == 0 else (" ".join(said.split())[:300], True)


def _fix_of(said: str) -> str:
    if _MISMATCH in said.lower():
        return "restart the machine: the driver was upgraded, and the old one is still loaded"
    return "install or repair NVIDIA's driver; nvidia-smi must list the GPU"


def _amd(survey: DeviceSurvey) -> list[Finding]:
    if survey.accelerators or not _AMD.exists():
        return []
    detail = "an AMD GPU is here; its memory is not measured"
    fix = "set it: [routing.budgets]; gglib engine install --variant vulkan or rocm uses it"
    return [Finding("devices", WARNING, detail, fix)]


async def _unused(parts: Composition, survey: DeviceSurvey) -> list[Finding]:
    """Return that there is a GPU, and an engine that has no use for it."""
    if not survey.accelerators or parts.settings.serving.engine:
        return []
    engines = await parts.engines()
    try:
        if "llama-server" in engines:
            await engines["llama-server"].probe()
            return []
    except GglibError:
        pass
    detail = "models are served by the embedded engine, which computes on the CPU alone"
    fix = "gglib engine install --variant vulkan, or cuda, uses the GPU"
    return [Finding("devices", WARNING, detail, fix)]
