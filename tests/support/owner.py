"""A process that owns a server: ``owner.py DATA_DIR KIND POINT OPTIONS-AS-JSON``.

Starts one server of a stub model, prints ``at POINT`` when it gets there, and stays there for
ever; the test kills it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from gglib.domain.ownership import OwnerKind
from gglib.testing.stub_engine import StubEngine
from support.servers import model_of, open_world


async def main() -> None:
    """Start a server and stop at the point."""
    data_dir, kind, point = Path(sys.argv[1]), OwnerKind(sys.argv[2]), sys.argv[3]

    async def at(reached: str) -> None:
        if reached == point:
            print(f"at {point}", flush=True)
            await anyio.sleep_forever()

    async with open_world(data_dir, StubEngine(**json.loads(sys.argv[4]))) as world:
        await world.serving(kind, at=at).start(model_of(data_dir))
        await at("ready")


anyio.run(main)
