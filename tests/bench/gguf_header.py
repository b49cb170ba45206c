"""How fast a model's header is read: as a ratio to the reference implementation."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf

from gglib_adapters.sources.gguf_header import SkippedArray, read_gguf_header

TOKENS = 150_000
RUNS = 9
LIMIT = 50.0


def write(path: Path) -> None:
    """Write a header with as many tokens, and merges, as the largest models have."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"token {number} é" for number in range(TOKENS)])
    writer.add_token_scores([0.0] * TOKENS)
    writer.add_token_types([1] * TOKENS)
    writer.add_token_merges([f"to ken{number}" for number in range(TOKENS)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def seconds(read: Callable[[Path], object], path: Path) -> float:
    """Return how long one reading takes."""
    began = time.perf_counter()
    read(path)
    return time.perf_counter() - began


def main() -> int:
    """Print both times and their ratio, and fail when it is under the limit."""
    with tempfile.TemporaryDirectory(prefix="gglib-bench-") as folder:
        path = Path(folder) / "vocabulary.gguf"
        write(path)
        ours = statistics.median(seconds(read_gguf_header, path) for _ in range(RUNS))
        theirs = seconds(gguf.GGUFReader, path)
        assert read_gguf_header(path).metadata["tokenizer.ggml.tokens"] == SkippedArray(8, TOKENS)
    ratio = theirs / ours
    failed = ratio < LIMIT
    print(f"{'gguf.GGUFReader':34}{theirs * 1000:8.1f} ms")
    over = ", MISSED" if failed else ""
    print(
        f"{'read_gguf_header':34}{ours * 1000:8.1f} ms{ratio:8.1f} x  (limit {LIMIT:.0f} x{over})"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
