"""What a run of the relay's benchmark found, as tables of Markdown, and beside its goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["report", "write_into"]

_BEGIN = "<!-- results: written by tests/bench/relay.py -->\n"
_END = "<!-- end of results -->\n"

Rows = dict[str, dict[str, Any]]


def report(found: dict[str, Any]) -> str:
    """Return everything that was found, as Markdown."""
    machine = found["machine"]
    rounds, seconds = found["rounds"], found["seconds"]
    intro = (
        f"One run on {machine['cores']} shared cores, Python {machine['python']}, "
        f"{machine['date']}, load {machine['load']} before it began; medians of {rounds} rounds "
        f"of {seconds} s (streams: twice as long), in which all take turns.\n"
    )
    many, held = found["many"], found["held"]
    return "\n".join(
        (
            intro,
            "### Goals\n",
            _goals(found),
            "### Short requests\n",
            _requests(found["requests"]),
            f"### {many['streams']} streams, {many['rate']} chunks a second each\n",
            _streams(many["rows"]),
            f"### {held['streams']:,} streams, {held['rate']} chunks a second each\n",
            _held(held["rows"]),
            "### A chat with an image of 10 MB\n",
            _image(found["image"]),
        )
    )


def write_into(page: Path, text: str) -> None:
    """Put a report into its place on a page.

    Raises:
        ValueError: the page has no such place.
    """
    before, begin, rest = page.read_text("utf-8").partition(_BEGIN)
    _, end, behind = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for results")
    page.write_text(f"{before}{begin}\n{text}\n{end}{behind}", "utf-8")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---", *["--:"] * (len(lines[0]) - 1)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _goals(found: dict[str, Any]) -> str:
    requests, many, held = found["requests"], found["many"]["rows"], found["held"]["rows"]
    to_nginx = found["ratios_to_nginx"]
    speed = statistics.median(to_nginx["requests_at_32"])
    added_us = requests["gglib"]["1"]["p50_us"] - requests["upstream"]["1"]["p50_us"]
    cpu = statistics.median(to_nginx["stream_cpu"])
    lag_ms = many["gglib"]["lag_max_ms"]
    whole, asked = held["gglib"]["whole"], held["gglib"]["streams"]
    kib = held["gglib"]["kib_per_stream"]
    idle_mib = held["gglib"]["idle_mib"]
    goals = [
        ("requests/s at 32 connections, of nginx's", "≥ 0.5", f"{speed:.2f}", speed >= 0.5),
        ("added to the p50 at one connection", "≤ 100 µs", f"{added_us:.0f} µs", added_us <= 100),
        ("CPU of the many streams, of nginx's", "≤ 1.3", f"{cpu:.2f}", cpu <= 1.3),
        ("the latest chunk of any stream", "≤ 50 ms", f"{lag_ms:.1f} ms", lag_ms <= 50),
        ("the held streams that got every chunk", f"{asked:,}", f"{whole:,}", whole == asked),
        ("memory of a held stream", "≤ 32 KiB", f"{kib:.1f} KiB", kib <= 32),
        ("memory when idle", "≤ 110 MiB", f"{idle_mib:.1f} MiB", idle_mib <= 110),
    ]
    return _table(
        ("goal", "limit", "found", "met"),
        ((name, limit, value, "yes" if met else "**no**") for name, limit, value, met in goals),
    )


def _requests(rows: Rows) -> str:
    return _table(
        ("", "requests/s at 1", "p50, p99 µs", "at 32", "p50, p99 µs", "at 256", "p50, p99 ms",
         "CPU µs a request, at 32"),
        (
            (
                name,
                *(text for connections in ("1", "32", "256")
                  for text in _speed(row[connections], in_ms=connections == "256")),
                f"{row['32']['cpu_us_per_request']:.1f}",
            )
            for name, row in rows.items()
        ),
    )  # fmt: skip


def _speed(row: dict[str, float], *, in_ms: bool) -> tuple[str, str]:
    p50, p99 = row["p50_us"], row["p99_us"]
    times = f"{p50 / 1e3:.1f}, {p99 / 1e3:.1f}" if in_ms else f"{p50:.0f}, {p99:.0f}"
    return f"{row['requests_per_s']:,.0f}", times


def _streams(rows: Rows) -> str:
    return _table(
        ("", "chunks/s", "CPU %", "CPU µs a chunk, all in all", "lag p50 ms", "p99", "max",
         "streams over 50 ms"),
        (
            (
                name,
                f"{row['chunks'] / row['took_s']:,.0f}",
                f"{row['cpu_percent']:.1f}",
                f"{row['cpu_us_per_chunk']:.1f}",
                f"{row['lag_p50_ms']:.2f}",
                f"{row['lag_p99_ms']:.2f}",
                f"{row['lag_max_ms']:.1f}",
                f"{row['over_50_ms']:.0f}",
            )
            for name, row in rows.items()
        ),
    )  # fmt: skip


def _held(rows: Rows) -> str:
    return _table(
        ("", "whole", "CPU %", "lag p99 ms", "max", "idle MiB", "KiB a stream"),
        (
            (
                name,
                f"{row['whole']:,} of {row['streams']:,}",
                f"{row['cpu_percent']:.1f}",
                f"{row['lag_p99_ms']:.2f}",
                f"{row['lag_max_ms']:.1f}",
                f"{row['idle_mib']:.1f}",
                f"{row['kib_per_stream']:.1f}",
            )
            for name, row in rows.items()
        ),
    )


def _image(rows: Rows) -> str:
    return _table(
        ("", "ms", "CPU ms", "peak memory MiB"),
        (
            (name, f"{row['ms']:.1f}", f"{row['cpu_ms']:.1f}", f"{row['peak_mib']:.1f}")
            for name, row in rows.items()
        ),
    )
