"""How long commands take, as multiples of the start of a bare interpreter."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from gglib.bootstrap import compose
from gglib.domain.model import Model, ModelFacts
from gglib.logs import SilentSink
from gglib.settings import load_settings

RUNS = 20
MODELS = 1000
LIMITS = {"import gglib": 3.0, "gglib --version": 8.0, f"gglib model list ({MODELS} models)": 55.0}


async def fill(data_dir: Path) -> None:
    """Put a thousand models into a catalog."""
    settings = load_settings(flags={"data_dir": data_dir}, environ={}).settings
    async with compose(settings, events=SilentSink()) as parts:
        catalog = await parts.catalog()
        for number in range(MODELS):
            await catalog.add(
                Model(
                    id=0,
                    name=f"model-{number:04}",
                    paths=(data_dir / f"model-{number:04}.gguf",),
                    size_bytes=4_000_000_000 + number,
                    facts=ModelFacts(
                        architecture="llama",
                        quantization="Q4_K_M",
                        parameters=8_000_000_000,
                        context_length=131072,
                        chat_template="{% for message in messages %}…{% endfor %}" * 40,
                        capabilities=frozenset({"chat", "completion"}),  # type: ignore[arg-type]
                    ),
                    added_at=1.0,
                )
            )


def median_s(commands: dict[str, list[str]]) -> dict[str, float]:
    """Return the median time of each command; the runs take turns, so that noise is shared."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    environment = {
        key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"
    }
    for run in range(RUNS + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if run:  # the first one fills caches
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> int:
    """Print each command's multiple, and fail when one is over its limit."""
    gglib = shutil.which("gglib") or "gglib"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gglib-bench-")))
        anyio.run(fill, folder)
        listing = [gglib, "model", "list", "--data-dir", str(folder)]
        medians = median_s(
            {
                "python -c pass": [sys.executable, "-c", "pass"],
                "import gglib": [sys.executable, "-c", "import gglib"],
                "gglib --version": [gglib, "--version"],
                f"gglib model list ({MODELS} models)": listing,
            }
        )
    base = medians["python -c pass"]
    failed = False
    for name, seconds in medians.items():
        limit = LIMITS.get(name)
        over = limit is not None and seconds > limit * base
        failed |= over
        allowed = f"  (limit {limit:.0f} x{', EXCEEDED' if over else ''})" if limit else ""
        print(f"{name:34}{seconds * 1000:8.1f} ms{seconds / base:8.1f} x{allowed}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
