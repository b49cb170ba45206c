"""Whether a model fits, with the sizes of the files that go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gglib.domain.device import Device, DeviceSurvey
from gglib.domain.model import Model, ModelDefaults
from gglib.errors import InvalidValue, ModelFileMissing
from gglib.services.memory import fit_model, within

pytestmark = pytest.mark.anyio
MIB = 2**20


MEMORY = Device(name="cpu", kind="cpu", total_bytes=1024 * MIB, free_bytes=1000 * MIB)
SURVEY = DeviceSurvey(devices=[MEMORY])


def model(**server: object) -> Model:
    """Return a model with defaults for its servers."""
    defaults = ModelDefaults(server={"context_size": 256, **server})
    return Model(id=1, name="m", paths=["/m"], size_bytes=100 * MIB, defaults=defaults)


async def test_projector_of_the_model_counts_with_its_size(tmp_path: Path) -> None:
    """And its images."""
    path = tmp_path / "projector"
    path.write_bytes(bytes(MIB))
    plain = await fit_model(model(), SURVEY)
    seeing = await fit_model(model(mmproj_path=path), SURVEY)
    assert plain.fits
    assert seeing.estimate.total_bytes == plain.estimate.total_bytes + 2 * MIB


async def test_missing_projector_is_named(tmp_path: Path) -> None:
    """The server would not start either."""
    with pytest.raises(ModelFileMissing, match="gone"):
        await fit_model(model(mmproj_path=tmp_path / "gone"), SURVEY)


async def test_overrides_win_over_the_models_settings() -> None:
    """As for a server; a wrong one is refused."""
    found = await fit_model(model(), SURVEY, {"context_size": 512})
    assert found.estimate.context_size == 512
    with pytest.raises(InvalidValue, match="context_sizes"):
        await fit_model(model(), SURVEY, {"context_sizes": 512})


def test_budget_that_a_person_has_set_is_all_there_is() -> None:
    """Even if more is free; less than that stays less."""
    devices = [
        Device(name=name, kind=name[:4].rstrip("0"), total_bytes=10, free_bytes=free)
        for name, free in (("cpu", 8), ("cuda0", 3), ("cuda1", 7))
    ]
    found = within(DeviceSurvey(devices=devices), {"cpu": 5, "cuda0": 5})
    assert [each.free_bytes for each in found.devices] == [5, 3, 7]
