"""Every queue of pulls keeps its port's promises."""

from __future__ import annotations

import pytest
from support.values import fields_at_default

from gglib.testing import PullQueueContract
from gglib.testing.contracts.pull_queue import OpenPullQueue, full_pull
from gglib_adapters.catalog.memory_pulls import open_memory_pull_queue
from gglib_adapters.catalog.pulls import open_sqlite_pull_queue


class TestMemoryPullQueue(PullQueueContract):
    """Pulls in a dictionary."""

    shared_by_openings = False

    @pytest.fixture
    def open_queue(self) -> OpenPullQueue:
        return open_memory_pull_queue


class TestSqlitePullQueue(PullQueueContract):
    """Pulls in the data directory's database."""

    @pytest.fixture
    def open_queue(self) -> OpenPullQueue:
        return open_sqlite_pull_queue


def test_full_pull_sets_every_field() -> None:
    """A field that a pull gets later cannot be forgotten in the contract."""
    pull = full_pull()
    values = (pull, pull.request, pull.request.reference, pull.plan, pull.plan.files[0])
    assert [field for value in values for field in fields_at_default(value)] == []
