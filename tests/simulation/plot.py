"""The waits of every policy on every workload, as an SVG that needs no library to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.policies import Run, Workload

__all__ = ["draw"]

_COLOURS = {"FIFO": "#c0392b", "ready-first": "#2980b9", "slice": "#d68910", "gglib": "#1e8449"}
_ROW, _LEFT, _WIDTH, _TOP = 64, 170, 560, 56
_DECADES = (1, 10, 100, 1_000, 10_000)


def _x(seconds: float) -> float:
    lowest, highest = math.log10(_DECADES[0]), math.log10(25_000)
    share = (math.log10(max(seconds, _DECADES[0])) - lowest) / (highest - lowest)
    return _LEFT + share * _WIDTH


def draw(runs: Mapping[tuple[Workload, str], Run]) -> str:
    """Return the picture: a line from p50 to the maximum, and a dot at the mean."""
    workloads = list(dict.fromkeys(workload for workload, _ in runs))
    height = _TOP + _ROW * len(workloads) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 30} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>Waits by policy and workload: p50, mean and maximum</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (policy, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + number * 110
        out.append(f'<circle cx="{x}" cy="18" r="4" fill="{colour}"/>')
        out.append(f'<text x="{x + 9}" y="22">{policy}</text>')
    for seconds in _DECADES:
        x = _x(seconds)
        out.append(
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{_TOP - 8}" y2="{height - 26}" stroke="#ddd"/>'
        )
        out.append(f'<text x="{x:.0f}" y="{height - 10}" text-anchor="middle">{seconds:,} s</text>')
    for row, workload in enumerate(workloads):
        y = _TOP + row * _ROW
        out.append(f'<text x="8" y="{y + 28}">{workload}</text>')
        for line, (policy, colour) in enumerate(_COLOURS.items()):
            run = runs[workload, policy]
            at = y + 6 + line * 13
            first, mean, last = (
                _x(each) for each in (run.percentile(0.5), run.mean, max(run.waits))
            )
            out.append(
                f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{at}" y2="{at}" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
            out.append(f'<circle cx="{mean:.1f}" cy="{at}" r="3.5" fill="{colour}"/>')
    return "\n".join([*out, "</svg>", ""])
