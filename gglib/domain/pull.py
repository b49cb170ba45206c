"""A pull: one model on its way from a hub to this machine, durable at every moment."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import attrs

from gglib.domain.hub import HubFile, RepositoryReference
from gglib.domain.ids import check_server_id, new_server_id
from gglib.domain.model import Model
from gglib.domain.validation import flag, model_name, number_at_least, text

__all__ = ["Pull", "PullPlan", "PullRequest", "PullState", "fetched_files", "new_pull_id"]


class PullState(StrEnum):
    """Where a pull is."""

    QUEUED = "queued"
    RUNNING = "running"
    """Being fetched; or it was, by a process that was killed: then whoever is next goes on."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in {PullState.DONE, PullState.FAILED, PullState.CANCELLED}


def new_pull_id() -> str:
    """Return a fresh id: sortable by time."""
    return new_server_id()


def _ulid(_instance: object, _attribute: object, value: str) -> None:
    check_server_id(value)


def _optional_name(instance: object, attribute: object, value: str | None) -> None:
    if value is not None:
        model_name(instance, attribute, value)


@attrs.frozen(kw_only=True)
class PullRequest:
    """What somebody asked for."""

    reference: RepositoryReference
    name: str | None = attrs.field(default=None, validator=_optional_name)
    """What the model is to be called; ``None``: as its file is."""
    mmproj: bool | None = attrs.field(default=None, validator=flag())
    """Whether to fetch a projector; ``None``: if the repository has one for it."""


def _files(value: Iterable[HubFile]) -> tuple[HubFile, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class PullPlan:
    """What is fetched, fixed once: what the hub gets later does not change a pull under way."""

    commit: str
    quantization: str
    files: tuple[HubFile, ...] = attrs.field(converter=_files)
    """The model's, every shard, the first one first."""
    projector: HubFile | None = None
    model_name: str = attrs.field(validator=model_name)
    updates: str | None = attrs.field(default=None, validator=text())
    """The model whose files these replace."""

    @property
    def all_files(self) -> tuple[HubFile, ...]:
        """The model's, and the projector."""
        return self.files if self.projector is None else (*self.files, self.projector)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.all_files)


@attrs.frozen(kw_only=True)
class Pull:
    """One pull on record."""

    id: str = attrs.field(validator=_ulid)
    request: PullRequest
    plan: PullPlan
    state: PullState = PullState.QUEUED
    created_at: float = attrs.field(validator=number_at_least(0, optional=False))
    ended_at: float | None = attrs.field(default=None, validator=number_at_least(0))
    error: str | None = None
    """Why it failed."""
    error_code: str | None = None
    """The error's kind, for programs."""

    def fetches_the_same_as(self, other: Pull) -> bool:
        """Whether both end with the same files as the same model."""
        return (self.request.reference.repository, self.plan) == (
            other.request.reference.repository,
            other.plan,
        )


def fetched_files(model: Model) -> dict[str, str | None]:
    """Return the names of a model's files, with what is known of their SHA-256."""
    marks = model.marks or (None,) * len(model.paths)
    return {
        path.name: mark.sha256 if mark is not None else None
        for path, mark in zip(model.paths, marks, strict=True)
    }
