"""What another machine costs: the first byte of an answer, and our CPU for each byte of a stream.

``PYTHONPATH=tests python tests/bench/far.py`` runs it. The other machine is this one, behind an
OpenSSH server on loopback; both models are served by the same stub, through the same gateway.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from support.commands import Home, stub_config
from support.far_machine import far_machine

ROUNDS = 5
REQUESTS = 200
EVENTS = 20_000
LIMIT_MS = 5.0
LIMIT_RATIO = 1.5
MODELS = ("near", "far")
PATH = "/v1/chat/completions"


def first_byte_ms(client: httpx.Client, model: str) -> float:
    """Return how long the first bytes of a short answer take, in the median."""
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        with client.stream("POST", PATH, json=asked(model, stream=False)) as answer:
            next(answer.iter_raw())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


def cpu_ns_a_byte(client: httpx.Client, gateway: psutil.Process, model: str) -> float:
    """Return what a byte of a long stream costs the gateway's own process."""

    def spent_s() -> float:
        times = gateway.cpu_times()
        return times.user + times.system

    before, size = spent_s(), 0
    with client.stream("POST", PATH, json=asked(model, stream=True)) as answer:
        for piece in answer.iter_raw():
            size += len(piece)
    return (spent_s() - before) / size * 1e9


def asked(model: str, *, stream: bool) -> dict[str, object]:
    """Return a request for an answer."""
    said = [{"role": "user", "content": "hi"}]
    return {"model": model, "messages": said, "stream": stream}


def main() -> None:
    """Run and print; exit with 1 if a limit is not kept."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    first: dict[str, list[float]] = {model: [] for model in MODELS}
    cost: dict[str, list[float]] = {model: [] for model in MODELS}
    with (
        tempfile.TemporaryDirectory(prefix="box-") as there,
        tempfile.TemporaryDirectory(prefix="here-") as folder,
        far_machine(Path(there)) as machine,
    ):
        home = Home.make(Path(folder))
        terms = "\n".join(f"{key} = {json.dumps(said)}" for key, said in machine.settings.items())
        section = f'[runners.box]\nkind = "ssh"\n{terms}\n[pool]\nmax_size = 2\n'
        text = stub_config(*MODELS, extra=section, chunks=EVENTS)
        home.configure(text + 'runner = "box"\n', *MODELS)
        with home.serve() as served, served.client() as client:
            gateway = psutil.Process(served.process.pid)
            for model in MODELS:
                client.post(PATH, json=asked(model, stream=False)).raise_for_status()
            for _ in range(rounds):
                for model in MODELS:
                    first[model].append(first_byte_ms(client, model))
                    cost[model].append(cpu_ns_a_byte(client, gateway, model))
            home.run("stop", "--all")
    near, far = (statistics.median(first[model]) for model in MODELS)
    ratio = statistics.median(cost["far"]) / statistics.median(cost["near"])
    print(f"first byte: {near:.2f} ms here, {far - near:+.2f} ms there (limit {LIMIT_MS:g})")
    print(f"CPU of the gateway for each byte: {ratio:.2f} x there (limit {LIMIT_RATIO:g})")
    sys.exit(not (far - near <= LIMIT_MS and ratio <= LIMIT_RATIO))


if __name__ == "__main__":
    main()
