"""How long scanning a folder and listing many models take, as their users wait."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from gglib.bootstrap import compose
from gglib.domain.file_mark import FileMark
from gglib.domain.model import Model, ModelFacts
from gglib.logs import SilentSink
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib.settings import load_settings

FILES, MANY, FEW = 1000, 10_000, 10
RUNS = 5
LIMITS_S = {
    f"scan of {FILES} files, cold": 10.0,
    f"scan of {FILES} files, unchanged": 1.0,
    f"list of {MANY} more than of {FEW}": 1.0,
}


async def fill(data_dir: Path, count: int) -> None:
    """Put models into a catalog, with all that real ones have."""
    settings = load_settings(flags={"data_dir": data_dir}, environ={}).settings
    async with compose(settings, events=SilentSink()) as parts:
        catalog = await parts.catalog()
        for number in range(count):
            await catalog.add(
                Model(
                    id=0,
                    name=f"model-{number:05}",
                    paths=(data_dir / f"model-{number:05}.gguf",),
                    size_bytes=4_000_000_000 + number,
                    facts=ModelFacts(
                        architecture="llama",
                        quantization="Q4_K_M",
                        parameters=8_000_000_000,
                        context_length=131_072,
                        chat_template="{% for message in messages %}…{% endfor %}" * 40,
                        capabilities=frozenset({"chat", "completion"}),  # type: ignore[arg-type]
                    ),
                    marks=(FileMark(size_bytes=4_000_000_000 + number, mtime_ns=number),),
                    added_at=1.0,
                )
            )


def seconds(*command: str | Path) -> float:
    """Return how long a command takes, from its start to its end."""
    began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    """Print each time, and fail when one is over its limit."""
    gglib = shutil.which("gglib") or "gglib"
    with tempfile.TemporaryDirectory(prefix="gglib-bench-") as folder:
        root = Path(folder)
        content = tiny_gguf()
        for number in range(FILES):
            path = root / "models" / str(number % 10) / f"tiny-{number}.gguf"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        scan = (gglib, "model", "scan", root / "models", "--data-dir", root / "scanned")
        cold = seconds(*scan)
        unchanged = statistics.median(seconds(*scan) for _ in range(RUNS))
        times: dict[int, list[float]] = {FEW: [], MANY: []}
        for count in times:
            (root / str(count)).mkdir(mode=0o700)
            anyio.run(fill, root / str(count), count)
        for _ in range(RUNS):
            for count, each in times.items():
                each.append(seconds(gglib, "model", "list", "--data-dir", root / str(count)))
        more = statistics.median(times[MANY]) - statistics.median(times[FEW])
    failed = False
    for (name, limit), found in zip(LIMITS_S.items(), (cold, unchanged, more), strict=True):
        over = found > limit
        failed |= over
        print(f"{name:34}{found:8.2f} s  (limit {limit:.0f} s{', EXCEEDED' if over else ''})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
