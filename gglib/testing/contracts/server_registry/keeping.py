"""What a registry keeps, and in which order."""

from __future__ import annotations

import attrs
import pytest

from gglib.domain.ids import new_server_id
from gglib.domain.ownership import OwnerKind
from gglib.domain.state import ServerState
from gglib.ports.server_registry import ServerRegistry
from gglib.testing.contracts.samples import full_record, plain_record, random_record, seeded
from gglib.testing.contracts.server_registry.kit import RegistryPromises

__all__ = ["KeepingPromises"]


class KeepingPromises(RegistryPromises):
    """A record that was put is there, whole, until it is removed."""

    async def test_opened_registry_is_of_the_port(self, registry: ServerRegistry) -> None:
        """The factory's context manager gives a ``ServerRegistry``."""
        assert isinstance(registry, ServerRegistry), (
            "bootstrap takes subclasses of ServerRegistry only"
        )

    async def test_new_registry_is_empty(self, registry: ServerRegistry) -> None:
        """A fresh data directory has no records."""
        assert await registry.list() == [], "list() of a new registry must be empty"

    async def test_intent_comes_back_whole(self, registry: ServerRegistry) -> None:
        """A record written before the spawn has everything but a handle."""
        record = plain_record()

        await registry.put(record)

        assert await registry.get(record.server_id) == record, "an intent must come back as it was"

    async def test_full_record_comes_back_whole(self, registry: ServerRegistry) -> None:
        """Owner, configuration, handle and key survive, in any script and of any size."""
        record = full_record()

        await registry.put(record)

        assert await registry.get(record.server_id) == record, "get() must return every field"
        assert await registry.list() == [record], "list() must return every field"

    async def test_any_record_comes_back_whole(self, registry: ServerRegistry) -> None:
        """Records with any fields set are what they were put as."""
        source = seeded(2026)
        for _ in range(20):
            record = random_record(source)
            await registry.put(record)
            found = await registry.get(record.server_id)
            assert found == record, "get() must return every field as it was put"

    @pytest.mark.parametrize("kind", OwnerKind)
    async def test_every_kind_of_owner_comes_back(
        self, registry: ServerRegistry, kind: OwnerKind
    ) -> None:
        """Whose a server is decides what happens to it."""
        record = plain_record()
        record = attrs.evolve(record, owner=attrs.evolve(record.owner, kind=kind))

        await registry.put(record)

        found = await registry.get(record.server_id)
        assert found == record, f"an owner of kind {kind} must come back"

    @pytest.mark.parametrize("state", ServerState)
    async def test_every_state_comes_back(
        self, registry: ServerRegistry, state: ServerState
    ) -> None:
        """The registry keeps a state; which may follow which is not its business."""
        record = plain_record(state=ServerState.FAILED)
        await registry.put(record)

        await registry.put(attrs.evolve(record, state=state))

        found = await registry.get(record.server_id)
        assert found is not None, "a record must stay until it is removed, whatever its state"
        assert found.state is state, "put() must keep any state"

    async def test_put_again_replaces_every_field(self, registry: ServerRegistry) -> None:
        """The last word counts, for what went back to nothing too."""
        before = full_record()
        after = plain_record(server_id=before.server_id, state=ServerState.STOPPING)
        await registry.put(before)

        await registry.put(after)

        assert await registry.list() == [after], "put() must replace the whole record of its server"

    async def test_put_leaves_other_records(self, registry: ServerRegistry) -> None:
        """Records of other servers, of the same model and owner too, stay as they are."""
        one, other = plain_record(created_at=1.0), plain_record(created_at=2.0)
        await registry.put(one)
        await registry.put(other)

        changed = attrs.evolve(one, api_key="new")
        await registry.put(changed)

        assert await registry.list() == [changed, other], "put() must change its own record alone"

    async def test_same_record_put_twice_is_one(self, registry: ServerRegistry) -> None:
        """Writing what is there already changes nothing."""
        record = full_record()

        await registry.put(record)
        await registry.put(record)

        assert await registry.list() == [record], "a server must have one record"

    @pytest.mark.parametrize("server_id", ["", "no such server", "'; --", "%", "0"])
    async def test_unknown_server_has_no_record(
        self, registry: ServerRegistry, server_id: str
    ) -> None:
        """Reading says so with ``None``; removing does nothing."""
        record = plain_record()
        await registry.put(record)

        assert await registry.get(server_id) is None, "get() of an unknown server must be None"
        await registry.remove(server_id)
        assert await registry.list() == [record], "remove() of an unknown server must do nothing"

    async def test_removed_record_is_gone_and_may_be_removed_again(
        self, registry: ServerRegistry
    ) -> None:
        """Removing is idempotent and touches nobody else's record."""
        record, other = full_record(), full_record()
        await registry.put(record)
        await registry.put(other)

        await registry.remove(record.server_id)
        await registry.remove(record.server_id)

        assert await registry.get(record.server_id) is None, "remove() must forget the record"
        assert await registry.list() == [other], "remove() must forget no other record"

    async def test_removed_record_may_be_put_again(self, registry: ServerRegistry) -> None:
        """Nothing of the earlier one is left."""
        record = full_record()
        await registry.put(record)
        await registry.remove(record.server_id)
        again = plain_record(server_id=record.server_id)

        await registry.put(again)

        assert await registry.list() == [again], "remove() must leave nothing of the record"

    async def test_records_are_listed_oldest_first(self, registry: ServerRegistry) -> None:
        """The order is that of creation, not of writing or of identity."""
        ids = sorted((new_server_id() for _ in range(4)), reverse=True)
        records = [
            plain_record(server_id=server_id, created_at=created_at)
            for server_id, created_at in zip(ids, (0.0, 0.5, 9.0, 10.0), strict=True)
        ]
        for number in (2, 0, 3, 1, 0):
            await registry.put(records[number])

        assert await registry.list() == records, "list() must be oldest first, by created_at"

    async def test_records_of_one_moment_have_one_order(self, registry: ServerRegistry) -> None:
        """Reading twice gives the same order."""
        for _ in range(10):
            await registry.put(plain_record())

        assert await registry.list() == await registry.list(), "the order must not change by itself"
