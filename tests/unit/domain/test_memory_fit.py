"""Whether a server fits, and corrections by what was observed."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.config import ServerConfig
from gglib.domain.device import Device, DeviceSurvey
from gglib.domain.memory import MemoryEstimate, MemoryParts
from gglib.domain.memory_fit import MemoryFit, fit_memory
from gglib.domain.memory_observed import (
    LEAST_FACTOR,
    MOST_FACTOR,
    MemoryObservation,
    corrected_bytes,
    corrected_estimate,
)
from gglib.domain.model import Model, ModelFacts
from gglib.errors import InvalidValue

MIB, GIB = 2**20, 2**30

#: A model of eight billion parameters, in four and a half bits.
FACTS = ModelFacts(
    architecture="llama",
    layers=32,
    heads=32,
    kv_heads=8,
    embedding_size=4096,
    feed_forward_size=14336,
    vocabulary_size=128256,
    context_length=131072,
    input_bytes=295 * MIB,
    output_bytes=430 * MIB,
)
MODEL = Model(id=1, name="m", paths=["/m"], size_bytes=4700 * MIB, facts=FACTS)


def survey(cpu_gib: float, *gpus_gib: float) -> DeviceSurvey:
    """Return devices with that much free."""
    sizes = {"cpu": cpu_gib} | {f"cuda{number}": size for number, size in enumerate(gpus_gib)}
    devices = [
        Device(
            name=name,
            kind=name.rstrip("0123456789"),
            total_bytes=1024 * GIB,
            free_bytes=int(size * GIB),
        )
        for name, size in sizes.items()
    ]
    return DeviceSurvey(devices=devices)


def fit(devices: DeviceSurvey, **values: Any) -> MemoryFit:
    """Return how the model fits."""
    config = ServerConfig(model_id=1, model_name="m", model_path="/m", **values)
    return fit_memory(MODEL, config, devices)


@pytest.mark.parametrize(
    ("devices", "values", "line"),
    [
        (
            survey(7.6),
            {"context_size": 8192},
            "6.1 GiB of 7.6 free, 33/33 layers, ctx 8192",
        ),
        (
            survey(30, 24),
            {"context_size": 8192},
            "5.9 GiB of 24.0 free on cuda0, 0.6 GiB of 30.0 free on cpu, "
            "33/33 layers on GPU, ctx 8192",
        ),
        (
            survey(30, 4),
            {"context_size": 8192},
            "3.9 GiB of 4.0 free on cuda0, 2.7 GiB of 30.0 free on cpu, "
            "20/33 layers on GPU, ctx 8192",
        ),
        (
            survey(7.6),
            {},
            "7.5 GiB of 7.6 free, 33/33 layers, ctx 17408 of 131072",
        ),
        (
            survey(7.6),
            {"cache_ram_mib": 0},
            "7.6 GiB of 7.6 free, 33/33 layers, ctx 22528 of 131072",
        ),
        (
            survey(7.6),
            {"context_size": 131072},
            "does not fit: 21.9 GiB of 7.6 free, 33/33 layers, ctx 131072; ctx 18176 would",
        ),
        (
            survey(30, 8),
            {},
            "7.9 GiB of 8.0 free on cuda0, 1.2 GiB of 30.0 free on cpu, "
            "33/33 layers on GPU, ctx 24576 of 131072",
        ),
        (
            survey(30, 4),
            {},
            "3.7 GiB of 4.0 free on cuda0, 19.0 GiB of 30.0 free on cpu, "
            "5/33 layers on GPU, ctx 131072",
        ),
        (
            survey(4),
            {},
            "does not fit: 5.4 GiB of 4.0 free, 33/33 layers, ctx 4096 of 131072",
        ),
        (
            survey(1),
            {"context_size": 8192},
            "does not fit: 6.1 GiB of 1.0 free, 33/33 layers, ctx 8192",
        ),
    ],
)
def test_decision_is_one_line(devices: DeviceSurvey, values: dict[str, Any], line: str) -> None:
    """What is needed and free, how many layers where, for what context; or what would fit."""
    assert fit(devices, **values).line == line


def test_asked_for_layers_are_not_moved() -> None:
    """A person's choice that does not fit is said not to."""
    found = fit(survey(30, 4), context_size=8192, gpu_layers=33)
    assert (found.fits, set(found.missing)) == (False, {"cuda0"})
    assert found.fitting_context is None or found.fitting_context < 8192


def test_gpu_without_room_is_left_alone() -> None:
    """The machine's memory takes it all."""
    found = fit(survey(30, 0.5), context_size=8192)
    assert (found.fits, found.estimate.gpu_layers, set(found.estimate.needs)) == (True, 0, {"cpu"})


def test_machine_that_cannot_be_read_has_no_room() -> None:
    """Nothing is promised in the dark."""
    found = fit(DeviceSurvey(notes=["cpu: its memory cannot be read"]), context_size=512)
    assert (found.fits, found.notes) == (False, ("cpu: its memory cannot be read",))


@given(
    st.floats(0, 64),
    st.lists(st.floats(0, 32), max_size=3),
    st.integers(1, 200_000),
    st.one_of(st.none(), st.integers(0, 40)),
)
def test_what_is_said_to_fit_fits(
    cpu: float, gpus: list[float], context_size: int, gpu_layers: int | None
) -> None:
    """On every device; and the context that is offered instead does."""
    devices = survey(cpu, *gpus)
    found = fit(devices, context_size=context_size, gpu_layers=gpu_layers)
    free = {device.name: device.free_bytes for device in devices.devices}
    short = {name for name, needed in found.estimate.needs.items() if needed > free[name]}
    assert set(found.missing) == short
    if found.fitting_context is not None:
        assert found.fitting_context < context_size
        assert fit(devices, context_size=found.fitting_context, gpu_layers=gpu_layers).fits


def observed(estimated: int, seen: int) -> MemoryObservation:
    """Return an observation."""
    return MemoryObservation(estimated_bytes=estimated, observed_bytes=seen)


def test_server_that_took_more_raises_the_estimate_at_once() -> None:
    """Also that of another context, by the same factor, which is bounded."""
    assert corrected_bytes(100, [observed(100, 130)]) == 130
    assert corrected_bytes(200, [observed(100, 130)]) == 260
    assert corrected_bytes(50, [observed(100, 1000)]) == 100
    assert corrected_bytes(100, [observed(100, 1000)]) == 1000


def test_servers_that_took_less_lower_it_when_three_agree() -> None:
    """To the largest of them, and never by more than half."""
    assert corrected_bytes(100, [observed(100, 70)] * 2) == 100
    assert corrected_bytes(100, [observed(100, 70), observed(100, 80), observed(50, 30)]) == 80
    assert corrected_bytes(100, [observed(100, 1)] * 3) == 50


def test_only_the_newest_observations_count() -> None:
    """An engine that has been mended is not held to its past."""
    assert corrected_bytes(100, [observed(100, 150), *[observed(100, 90)] * 16]) == 90


OBSERVATIONS = st.lists(
    st.builds(observed, st.integers(1, 2**63), st.integers(0, 2**63)), max_size=20
)


@given(st.integers(0, 2**63), OBSERVATIONS)
def test_correction_is_bounded_and_never_below_what_was_observed(
    estimated: int, observations: list[MemoryObservation]
) -> None:
    """By its own kind; without observations nothing changes."""
    found = corrected_bytes(estimated, observations)
    newest = observations[-16:]
    seen = [each.observed_bytes for each in newest if each.estimated_bytes <= estimated]
    if not observations:
        assert found == estimated
    assert all(found >= each for each in seen)
    assert found >= estimated * LEAST_FACTOR
    assert found <= max([estimated * MOST_FACTOR + 1, *seen])


@given(st.integers(0, 2**40), st.integers(0, 2**40), OBSERVATIONS)
def test_correction_keeps_the_order_of_estimates(
    one: int, other: int, observations: list[MemoryObservation]
) -> None:
    """A larger context still needs no less."""
    small, large = sorted((one, other))
    assert corrected_bytes(small, observations) <= corrected_bytes(large, observations)


@given(OBSERVATIONS, st.integers(0, 2**40), st.integers(0, 2**40))
def test_corrected_parts_sum_to_the_corrected_whole(
    observations: list[MemoryObservation], weights: int, kv: int
) -> None:
    """Device by device, to the byte; but for what 63 bits cannot hold."""
    parts = MemoryParts(weights_bytes=weights, kv_bytes=kv, compute_bytes=7)
    before = MemoryEstimate(
        devices={"cpu": parts, "cuda0": parts}, context_size=1, slots=1, layers=2, gpu_layers=1
    )
    after = corrected_estimate(before, {"cpu": observations})
    needed = corrected_bytes(parts.total_bytes, observations)
    assert abs(after.needs["cpu"] - min(needed, 2**63 - 1)) <= parts.total_bytes * (
        needed >= 2**63 - 1
    )
    assert after.devices["cuda0"] == parts
    assert (after.source == "observed") is (needed != parts.total_bytes)


def test_stated_memory_is_not_corrected() -> None:
    """A person knows better."""
    before = MemoryEstimate(
        devices={"cpu": MemoryParts(other_bytes=5)},
        context_size=1,
        slots=1,
        layers=2,
        gpu_layers=0,
        source="stated",
    )
    assert corrected_estimate(before, {"cpu": [observed(5, 50)]}) is before


def test_fit_takes_corrections_into_account() -> None:
    """What was observed decides."""
    config = ServerConfig(model_id=1, model_name="m", model_path="/m", context_size=8192)

    def twice(estimate: MemoryEstimate) -> MemoryEstimate:
        seen = [observed(estimate.needs["cpu"], 2 * estimate.needs["cpu"])]
        return corrected_estimate(estimate, {"cpu": seen})

    assert fit_memory(MODEL, config, survey(8)).fits
    assert not fit_memory(MODEL, config, survey(8), correct=twice).fits


def test_device_with_more_free_than_it_has_is_refused() -> None:
    """Adapters that mix up sizes are told."""
    device = survey(1).devices[0]
    with pytest.raises(InvalidValue, match="free_bytes"):
        attrs.evolve(device, total_bytes=5)
