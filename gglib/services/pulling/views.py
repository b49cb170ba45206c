"""Pulls as plain data: the same over HTTP and on the command line."""

from __future__ import annotations

from typing import Any

from gglib.domain.model import Model
from gglib.services.pulling.service import PullStatus

__all__ = ["describe_current", "describe_pull"]


def describe_pull(status: PullStatus) -> dict[str, Any]:
    """Return a pull at one moment."""
    pull, plan = status.pull, status.pull.plan
    return {
        "id": pull.id,
        "state": pull.state.value,
        "repository": pull.request.reference.repository,
        "quantization": plan.quantization,
        "revision": plan.commit,
        "model": plan.model_name,
        "updates": plan.updates is not None,
        "files": [file.path for file in plan.all_files],
        "done_bytes": status.done_bytes,
        "kept_bytes": status.kept_bytes,
        "total_bytes": status.total_bytes,
        "note": status.note,
        "error": pull.error,
        "error_kind": pull.error_code,
        "created_at": pull.created_at,
        "ended_at": pull.ended_at,
    }


def describe_current(model: Model) -> dict[str, Any]:
    """Return a model that has the newest files already."""
    return {
        "state": "current",
        "repository": model.origin.repository,
        "revision": model.origin.revision,
        "model": model.name,
    }
