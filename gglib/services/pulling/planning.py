"""From what somebody asked for to the very files that are fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.device import CPU, DeviceSurvey
from gglib.domain.free_names import FreeNames
from gglib.domain.hub import HubFile, HubRevision
from gglib.domain.memory_fit import LEAST_CONTEXT, MemoryFit, fit_memory
from gglib.domain.model import Model
from gglib.domain.pull import PullPlan, PullRequest, fetched_files
from gglib.domain.quantizations import (
    Quantization,
    best_quantization,
    find_quantization,
    projector_among,
    quantizations_of,
)
from gglib.errors import InvalidRequest, ModelExists, QuantizationNotFound

__all__ = ["AlreadyThere", "Offer", "folder_name", "offers_of", "plan_pull"]

#: Of the machine's own memory: what the system and other programs leave.
_FOR_MODELS = 0.9
#: Until its header is there, nothing is known of a model but its size: a tenth more stands for
#: the context and working memory.
_BESIDE_WEIGHTS = 1.1

_FALLBACK_NAME = "model"


@attrs.frozen(kw_only=True)
class Offer:
    """A quantization of a repository, and how it would fit into this machine."""

    quantization: Quantization
    fit: MemoryFit
    """Into all memory there is for models, whatever is in it now; by size alone."""

    @property
    def fits(self) -> bool:
        """Whether it could be served here."""
        return self.fit.fits


@attrs.frozen(kw_only=True)
class AlreadyThere:
    """Nothing is to be fetched: the model has the newest files."""

    model: Model


Planned: TypeAlias = PullPlan | AlreadyThere


def offers_of(revision: HubRevision, survey: DeviceSurvey) -> list[Offer]:
    """Return what a repository has, the smallest first."""
    room = _when_empty(survey)
    return [
        Offer(quantization=each, fit=_fit_by_size(each, room))
        for each in quantizations_of(revision.files)
    ]


def plan_pull(
    request: PullRequest, revision: HubRevision, offers: Sequence[Offer], models: Iterable[Model]
) -> Planned:
    """Return what is to be fetched for ``request``, or the model that has it already.

    Raises:
        QuantizationNotFound: there is no such quantization, or none that fits.
        InvalidRequest: a projector is wanted, and there is none.
        ModelExists: the name that is asked for is taken by another model.
    """
    repository = revision.repository
    chosen = _chosen(request, repository, offers)
    projector = None
    if request.mmproj is not False:
        projector = projector_among(revision.files, chosen)
    if request.mmproj and projector is None:
        raise InvalidRequest(f"{repository} has no projector (mmproj) for it", "mmproj")
    models = list(models)
    before = _fetched_before(models, repository, chosen)
    if before is not None and _is_complete(before, revision, chosen, projector):
        return AlreadyThere(model=before)
    return PullPlan(
        commit=revision.commit,
        quantization=chosen.name,
        files=chosen.files,
        projector=projector,
        model_name=_name_for(request, chosen, models) if before is None else before.name,
        updates=None if before is None else before.name,
    )


def _chosen(request: PullRequest, repository: str, offers: Sequence[Offer]) -> Quantization:
    quantizations = [offer.quantization for offer in offers]
    wanted = request.reference.quantization
    if wanted is not None:
        return find_quantization(quantizations, wanted, repository)
    if not offers:
        raise QuantizationNotFound(
            f"{repository} has no whole GGUF model; "
            f"`gglib model search {repository.partition('/')[2]}` may find one of its name"
        )
    fitting = {offer.quantization.stem for offer in offers if offer.fits}
    best = best_quantization(quantizations, lambda each: each.stem in fitting)
    if best is None:
        smallest = offers[0]
        raise QuantizationNotFound(
            f"no quantization of {repository} fits into this machine "
            f"({smallest.quantization.name}, the smallest: {smallest.fit.line}); "
            f"to fetch one all the same, name it: {repository}:{smallest.quantization.name}"
        )
    return best


def _fetched_before(models: Iterable[Model], repository: str, chosen: Quantization) -> Model | None:
    """Return the model whose files these would be, or would replace."""
    names = [file.name for file in chosen.files]
    for model in models:
        # Of two quantizations with files of one name, each is in its own folder.
        same_place = model.path.parent.name == folder_name(chosen.name)
        if (
            model.origin.kind == "hub"
            and model.origin.repository == repository
            and list(fetched_files(model)) == names
            and same_place
        ):
            return model
    return None


def _is_complete(
    model: Model, revision: HubRevision, chosen: Quantization, projector: HubFile | None
) -> bool:
    # Whether a projector that was fetched is the model's, its reader has decided.
    needed = [] if projector is None else [model.path.parent / projector.name]
    if not all(path.is_file() for path in (*model.paths, *needed)):
        return False
    if model.origin.revision == revision.commit:
        return True
    known = fetched_files(model)
    return all(
        file.sha256 is not None and known.get(file.name) == file.sha256 for file in chosen.files
    )


def folder_name(quantization: str) -> str:
    """Return the name of the folder that a quantization's files are in."""
    return quantization.strip(". ") or _FALLBACK_NAME


def _name_for(request: PullRequest, chosen: Quantization, models: Sequence[Model]) -> str:
    taken = {name: model for model in models for name in (model.name, *model.aliases)}
    if request.name is not None:
        if request.name in taken:
            raise ModelExists(request.name, taken[request.name].name)
        return request.name
    wanted = chosen.stem.lstrip("-. ").replace("..", ".") or _FALLBACK_NAME
    owner = request.reference.repository.partition("/")[0]
    return FreeNames(taken).choose(wanted[:200], owner)


def _when_empty(survey: DeviceSurvey) -> DeviceSurvey:
    """Return what there is when nothing else is loaded: that is what can be made room for."""
    return attrs.evolve(
        survey,
        devices=[
            attrs.evolve(
                device,
                free_bytes=int(device.total_bytes * (_FOR_MODELS if device.name == CPU else 1)),
            )
            for device in survey.devices
        ],
    )


def _fit_by_size(quantization: Quantization, survey: DeviceSurvey) -> MemoryFit:
    size_bytes = min(int(quantization.size_bytes * _BESIDE_WEIGHTS), 2**63 - 1)
    model = Model(
        id=0, name=_FALLBACK_NAME, paths=(quantization.files[0].name,), size_bytes=size_bytes
    )
    config = ServerConfig(
        model_id=0, model_name=model.name, model_path=model.path, context_size=LEAST_CONTEXT
    )
    return fit_memory(model, config, survey)
