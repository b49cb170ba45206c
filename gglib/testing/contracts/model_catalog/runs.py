"""What a catalog remembers of servers that have ended."""

from __future__ import annotations

import attrs

from gglib.domain.memory_observed import MemoryObservation
from gglib.domain.model_run import KEPT_RUNS, ModelRun
from gglib.ports.context import AdapterContext
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contracts.model_catalog.kit import CatalogPromises, OpenCatalog
from gglib.testing.contracts.samples import LARGEST, plain_model

__all__ = ["RunPromises"]

_MEMORY = {
    "cpu": MemoryObservation(estimated_bytes=1, observed_bytes=0),
    "cuda0": MemoryObservation(estimated_bytes=LARGEST, observed_bytes=LARGEST),
}


def _run(number: int) -> ModelRun:
    return ModelRun(ended_at=1_700_000_000.25 + number, requests=number, memory=_MEMORY)


class RunPromises(CatalogPromises):
    """The newest runs of a model are there, until it is removed."""

    async def test_catalog_without_runs_has_none(self, catalog: ModelCatalog) -> None:
        """A model that was never served has no past."""
        await catalog.add(plain_model())

        assert not any((await catalog.runs()).values()), "runs() of a new model must be empty"

    async def test_runs_come_back_whole_and_in_order(self, catalog: ModelCatalog) -> None:
        """Each model has its own, the oldest first; the revision does not tell of them."""
        self.need_runs()
        first = await catalog.add(plain_model("first"))
        declared = await catalog.id_for_name("declared")
        before = await catalog.revision()

        for number in (1, 2, 3):
            await catalog.add_run(first.id, _run(number))
        await catalog.add_run(declared, ModelRun(ended_at=5.0, requests=0))

        runs = await catalog.runs()
        assert list(runs[first.id]) == [_run(1), _run(2), _run(3)], (
            "runs() must have every field, in the order of add_run()"
        )
        assert list(runs[declared]) == [ModelRun(ended_at=5.0, requests=0)], (
            "a model that is declared elsewhere has runs, too"
        )
        assert await catalog.revision() == before, "a run is no change of the models"

    async def test_the_newest_runs_of_each_model_are_kept(self, catalog: ModelCatalog) -> None:
        """What is remembered does not grow for ever."""
        self.need_runs()
        often = await catalog.add(plain_model("often"))
        once = await catalog.add(plain_model("once"))
        await catalog.add_run(once.id, _run(0))

        for number in range(KEPT_RUNS + 3):
            await catalog.add_run(often.id, _run(number))

        runs = await catalog.runs()
        kept = [run.requests for run in runs[often.id]]
        assert kept == list(range(3, KEPT_RUNS + 3)), "the newest KEPT_RUNS must be kept"
        assert list(runs[once.id]) == [_run(0)], "one model's runs must not push out another's"

    async def test_runs_of_an_unknown_model_are_forgotten(self, catalog: ModelCatalog) -> None:
        """A server may end after its model was removed, or never had one: that is no error."""
        for model_id in (-1, 0, 5, LARGEST):
            await catalog.add_run(model_id, _run(1))

        assert not any((await catalog.runs()).values()), "an unknown model has no runs"

    async def test_runs_go_with_their_model_and_stay_through_changes(
        self, catalog: ModelCatalog
    ) -> None:
        """A changed or renamed model has the past it had; one that is added anew has none."""
        self.need_runs()
        kept = await catalog.add(plain_model("before"))
        gone = await catalog.add(plain_model("gone"))
        for model in (kept, gone):
            await catalog.add_run(model.id, _run(1))

        await catalog.update(attrs.evolve(kept, name="after", size_bytes=8))
        await catalog.remove(gone.id)
        again = await catalog.add(plain_model("gone"))

        runs = await catalog.runs()
        assert list(runs[kept.id]) == [_run(1)], "renaming must not lose a model's runs"
        assert not runs.get(again.id), "a removed model's runs must go with it"

    async def test_runs_are_there_for_other_openings(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> None:
        """The next process learns from this one's servers."""
        self.need_runs()
        self.need_shared_openings()
        async with open_catalog(context) as first:
            model = await first.add(plain_model())
            await first.add_run(model.id, _run(1))

        async with open_catalog(context) as second:
            assert list((await second.runs())[model.id]) == [_run(1)], (
                "a run must outlast the opening that wrote it"
            )
