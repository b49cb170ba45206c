"""Calls that are made at once, are cancelled, or come from another opening."""

from __future__ import annotations

import attrs
import pytest

from gglib.domain.ids import new_server_id
from gglib.domain.state import ServerState
from gglib.ports.context import AdapterContext
from gglib.ports.server_registry import ServerRegistry
from gglib.testing.contracts.backends import CANCEL_AFTER, at_once, cancelled_after
from gglib.testing.contracts.samples import full_record, plain_record
from gglib.testing.contracts.server_registry.kit import OpenRegistry, RegistryPromises

__all__ = ["TransactionPromises"]


class TransactionPromises(RegistryPromises):
    """Every call is durable when it returns; one that is cancelled is done whole or not at all."""

    async def test_ten_records_put_at_once_are_all_kept(self, registry: ServerRegistry) -> None:
        """None is lost."""
        records = [full_record(created_at=float(number)) for number in range(10)]

        await at_once(lambda number: registry.put(records[number]))

        assert await registry.list() == records, "records that are put at once must all be kept"

    async def test_one_record_put_ten_times_at_once_is_one_of_them(
        self, registry: ServerRegistry
    ) -> None:
        """Writers of one record do not mix their fields."""
        server_id = new_server_id()
        versions = [
            full_record(server_id=server_id, api_key=f"key {number}", created_at=float(number))
            for number in range(10)
        ]

        await at_once(lambda number: registry.put(versions[number]))

        (found,) = await registry.list()
        assert found in versions, "a record must be one that was put, never a mixture"

    async def test_changes_at_once_are_all_made(self, registry: ServerRegistry) -> None:
        """Removing some while others are written, and read, loses none."""
        old = [plain_record(created_at=float(number)) for number in range(10)]
        new = [attrs.evolve(record, api_key="new") for record in old]
        for record in old:
            await registry.put(record)

        async def change(number: int) -> None:
            if number % 2:
                await registry.remove(old[number].server_id)
            else:
                await registry.put(new[number])
            await registry.list()

        await at_once(change)

        assert await registry.list() == new[::2], "changes made at once must all be made"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_put_is_done_whole_or_not_at_all(
        self, registry: ServerRegistry, steps: int
    ) -> None:
        """The record is the old or the new one; the registry works on."""
        old = plain_record()
        new = full_record(server_id=old.server_id)
        await registry.put(old)

        await cancelled_after(steps, lambda: registry.put(new))

        found = await registry.get(old.server_id)
        assert found in (old, new), "a cancelled put() must be done whole or not at all"
        await registry.put(new)
        assert await registry.list() == [new], "a registry must work on after a cancelled call"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_remove_is_done_whole_or_not_at_all(
        self, registry: ServerRegistry, steps: int
    ) -> None:
        """The record is there or gone; the registry works on."""
        record, other = full_record(created_at=1.0), full_record(created_at=2.0)
        await registry.put(record)
        await registry.put(other)

        await cancelled_after(steps, lambda: registry.remove(record.server_id))

        left = await registry.list()
        assert left in ([record, other], [other]), "a cancelled remove() must leave whole records"
        await registry.remove(record.server_id)
        assert await registry.list() == [other], "a registry must work on after a cancelled call"

    async def test_registry_opened_again_has_its_records(
        self, open_registry: OpenRegistry, context: AdapterContext
    ) -> None:
        """A call is durable when it returns: a crash loses no server."""
        self.need_shared_openings()
        record, gone = full_record(), full_record()
        async with open_registry(context) as first:
            await first.put(record)
            await first.put(gone)
            await first.remove(gone.server_id)

        async with open_registry(context) as second:
            assert await second.list() == [record], "records must outlive the opening"

    async def test_change_is_seen_through_another_opening(
        self, open_registry: OpenRegistry, context: AdapterContext
    ) -> None:
        """Processes share the records: what one wrote, another one reads at once, and changes."""
        self.need_shared_openings()
        record = plain_record()
        stopped = attrs.evolve(record, state=ServerState.STOPPED)
        async with open_registry(context) as one, open_registry(context) as two:
            await one.put(record)
            assert await two.get(record.server_id) == record, "other openings must see a put()"
            await two.put(stopped)
            assert await one.get(record.server_id) == stopped, "other openings may replace it"
            await two.remove(record.server_id)
            assert await one.list() == [], "other openings must see a remove()"

    async def test_two_openings_write_side_by_side(
        self, open_registry: OpenRegistry, context: AdapterContext
    ) -> None:
        """Writers of two openings wait for each other; none is lost or refused."""
        self.need_shared_openings()
        records = [plain_record(created_at=float(number)) for number in range(10)]
        async with open_registry(context) as one, open_registry(context) as two:
            await at_once(lambda number: (one, two)[number % 2].put(records[number]))
            assert await two.list() == records, "no opening may lose another's record"
