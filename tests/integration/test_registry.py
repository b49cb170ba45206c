"""The SQLite registry keeps the port's promises, on both event loops."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from gglib.domain.config import LoraAdapter, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.domain.inference import InferenceConfig
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState
from gglib.errors import DatabaseCorrupt
from gglib.ports.server_registry import ServerRegistry
from gglib.testing.contexts import make_context
from gglib_adapters.catalog.registry import open_sqlite_registry
from gglib_adapters.catalog.sqlite import open_sqlite_catalog


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test here on both loops."""
    return str(request.param)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[ServerRegistry]:
    """Open a registry in a fresh data directory."""
    async with open_sqlite_registry(make_context(tmp_path)) as opened:
        yield opened


def intent(**changes: Any) -> ServerRecord:
    """Return a record as it is before its server's spawn."""
    fields: dict[str, Any] = {
        "server_id": new_server_id(),
        "owner": Owner(
            kind=OwnerKind.GATEWAY, pid=os.getpid(), process_started_at=12.25, node="here"
        ),
        "config": ServerConfig(model_id=1, model_name="qwen", model_path="/m/qwen.gguf"),
        "engine": "llama-server",
        "runner": "local",
        "state": ServerState.STARTING,
        "created_at": 1_700_000_000.5,
    }
    return ServerRecord(**fields | changes)


def handle_of(record: ServerRecord) -> ProcessHandle:
    """Return a handle for ``record``'s server."""
    return ProcessHandle(
        model_id=1,
        model_name="qwen",
        pid=4242,
        port=9000,
        started_at=1_700_000_001.0,
        server_id=record.server_id,
        runner="local",
        node="here",
        base_url="http://127.0.0.1:9000",
        process_started_at=1_700_000_000.875,
    )


async def test_intent_comes_back_whole(registry: ServerRegistry) -> None:
    """A row written before the spawn has everything but a handle."""
    record = intent()

    await registry.put(record)

    assert await registry.get(record.server_id) == record


async def test_full_record_comes_back_whole(registry: ServerRegistry) -> None:
    """Configuration, handle and key survive the way to the disk and back."""
    record = intent(
        config=ServerConfig(
            model_id=1,
            model_name="qwen",
            model_path="/m/\udcff.gguf",
            context_size=8192,
            inference=InferenceConfig(temperature=0.5, stop=["\n"]),
            lora_adapters=[LoraAdapter("/m/lora.gguf", 0.5, "tone")],
            environment={"GGLIB_SERVER_ID": "x", "A": "b=c"},
            extra_args=("--flag", "ü"),
            mmap=False,
        ),
        owner=Owner(kind=OwnerKind.LIBRARY, pid=2**31, process_started_at=0.1, node="düne"),
        state=ServerState.READY,
        api_key="secret",
        keep_alive=True,
    )
    record = attrs.evolve(record, handle=handle_of(record))

    await registry.put(record)

    assert await registry.get(record.server_id) == record
    assert await registry.list() == [record]


async def test_put_again_replaces_every_field(registry: ServerRegistry) -> None:
    """The last word counts, for the fields that went back to nothing too."""
    before = intent(api_key="secret", keep_alive=True, state=ServerState.READY)
    before = attrs.evolve(before, handle=handle_of(before))
    after = attrs.evolve(
        before, handle=None, api_key=None, keep_alive=False, state=ServerState.STOPPING
    )

    await registry.put(before)
    await registry.put(after)

    assert await registry.list() == [after]


async def test_records_are_listed_oldest_first(registry: ServerRegistry) -> None:
    """The order is that of creation, and of identity within one moment."""
    ids = sorted(new_server_id() for _ in range(3))
    late = intent(server_id=ids[0], created_at=3.0)
    twins = [intent(server_id=ids[1], created_at=2.0), intent(server_id=ids[2], created_at=2.0)]
    for record in (late, twins[1], twins[0]):
        await registry.put(record)

    assert await registry.list() == [*twins, late]


async def test_removed_record_is_gone_and_may_be_removed_again(registry: ServerRegistry) -> None:
    """Removing is idempotent and touches nobody else's row."""
    record, other = intent(), intent()
    await registry.put(record)
    await registry.put(other)

    await registry.remove(record.server_id)
    await registry.remove(record.server_id)

    assert await registry.get(record.server_id) is None
    assert await registry.list() == [other]


async def test_record_is_seen_through_another_opening(tmp_path: Path) -> None:
    """What one opening wrote, another one reads at once; the catalog shares the file."""
    record = intent()
    context = make_context(tmp_path)
    async with (
        open_sqlite_registry(context) as one,
        open_sqlite_registry(context) as two,
        open_sqlite_catalog(context) as catalog,
    ):
        await one.put(record)

        assert await two.get(record.server_id) == record
        assert await catalog.list() == []


async def test_registry_and_catalog_written_at_once_lose_nothing(tmp_path: Path) -> None:
    """Both adapters on one file wait for each other."""
    context = make_context(tmp_path)
    async with open_sqlite_registry(context) as registry, open_sqlite_catalog(context) as catalog:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(registry.put, intent())
                tasks.start_soon(catalog.id_for_name, f"name-{number}")

        assert len(await registry.list()) == 20
        assert await catalog.revision() == 20


@pytest.mark.parametrize(
    ("column", "value"), [("state", "flying"), ("owner_kind", "nobody"), ("config", "{}")]
)
async def test_row_that_is_no_record_names_the_server(
    tmp_path: Path, column: str, value: str
) -> None:
    """A damaged row is a damaged database, and the message says which row."""
    record = intent()
    async with open_sqlite_registry(make_context(tmp_path)) as registry:
        await registry.put(record)
        with closing(sqlite3.connect(tmp_path / "gglib.db")) as direct, direct:
            direct.execute(f"UPDATE servers SET {column} = ?", (value,))

        with pytest.raises(DatabaseCorrupt, match=record.server_id):
            await registry.list()
