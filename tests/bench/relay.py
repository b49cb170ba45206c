"""What a hop costs: the bare upstream, nginx, gglib and installed peers, in one run.

``nox -s bench`` runs it, or ``PYTHONPATH=tests python tests/bench/relay.py``. Machines are noisy:
only the ratios within one run mean something. gglib runs as users run it, with a key asked for,
requests routed and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from bench.contenders import Contender, post, start_contenders
from bench.image import send_image
from bench.processes import BenchFailed
from bench.report import report, write_into
from bench.request_load import sample
from bench.streams import relay_streams

Found = dict[str, float]

ROUNDS = 5
CONNECTIONS = (32, 1, 256)
#: Streams, and chunks a second of each.
MANY = (200, 100)
HELD = (1000, 10)


def in_turns(
    contenders: list[Contender], rounds: int, measure: Callable[[Contender], Found]
) -> dict[str, list[Found]]:
    """Measure all contenders in turns, so that they share the machine's moods.

    A peer that fails is left out from there on, and told of.
    """
    found: dict[str, list[Found]] = {each.name: [] for each in contenders}
    for _ in range(rounds):
        for contender in contenders:
            if contender.name not in found:
                continue
            try:
                found[contender.name].append(measure(contender))
            except BenchFailed as error:
                if not contender.peer:
                    raise
                print(f"{contender.name} is left out: {error}", file=sys.stderr)
                del found[contender.name]
    return found


def medians(samples: dict[str, list[Found]]) -> dict[str, Found]:
    """Return the median of every number."""
    return {
        name: {key: round(statistics.median(each[key] for each in found), 3) for key in found[0]}
        for name, found in samples.items()
    }


def ratios(samples: dict[str, list[Found]], key: str) -> list[float]:
    """Return what gglib needs or does of what nginx needs or does, by round."""
    pairs = zip(samples["gglib"], samples["nginx"], strict=True)
    return [round(ours[key] / theirs[key], 3) for ours, theirs in pairs]


def measure_requests(
    contenders: list[Contender], rounds: int, seconds: int, folder: Path
) -> tuple[dict[str, dict[str, Found]], dict[str, list[float]]]:
    """Return what was found by contender and number of connections, and the ratios to nginx."""
    rows: dict[str, dict[str, Found]] = {each.name: {} for each in contenders}
    to_nginx = {}
    for connections in CONNECTIONS:
        measure = partial(sample, connections=connections, folder=folder)
        in_turns(contenders, 1, partial(measure, seconds=1))
        samples = in_turns(contenders, rounds, partial(measure, seconds=seconds))
        to_nginx[f"requests_at_{connections}"] = ratios(samples, "requests_per_s")
        for name, row in medians(samples).items():
            rows[name][str(connections)] = row
    whole = {name: row for name, row in rows.items() if len(row) == len(CONNECTIONS)}
    return whole, to_nginx


def run(rounds: int, seconds: int, *, peers: bool) -> dict[str, Any]:
    """Measure everything, and return it."""
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gglib-bench-")))
        contenders = start_contenders(stack, folder, peers=peers)
        for contender in contenders:
            post(contender.request_port)
            post(contender.stream_port, "streams")
        # Memory first, while nobody has grown by other work.
        hold = partial(relay_streams, streams=HELD[0], rate=HELD[1], seconds=2 * seconds)
        held = in_turns(contenders, 1, hold)
        relay = partial(relay_streams, streams=MANY[0], rate=MANY[1], seconds=2 * seconds)
        many = in_turns(contenders, rounds, relay)
        requests, to_nginx = measure_requests(contenders, rounds, seconds, folder)
        images = in_turns(contenders, 1, send_image)
    return {
        "machine": {
            "cores": psutil.cpu_count(),
            "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d"),
            "load": round(load, 1),
        },
        "seconds": seconds,
        "rounds": rounds,
        "requests": requests,
        "many": {"streams": MANY[0], "rate": MANY[1], "rows": medians(many)},
        "held": {"streams": HELD[0], "rate": HELD[1], "rows": medians(held)},
        "image": medians(images),
        "ratios_to_nginx": {**to_nginx, "stream_cpu": ratios(many, "cpu_percent")},
    }


def main() -> None:
    """Run, print the tables, and write them where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("bench-results/relay.json"))
    parser.add_argument("--page", type=Path, help="a page of the documentation to write into")
    parser.add_argument("--no-peers", action="store_true", help="nginx and gglib alone")
    options = parser.parse_args()
    try:
        found = run(options.rounds, options.seconds, peers=not options.no_peers)
    except BenchFailed as error:
        sys.exit(str(error))
    text = report(found)
    print(text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written: {options.json}")
    if options.page:
        write_into(options.page, text)
        print(f"written: {options.page}")


if __name__ == "__main__":
    main()
