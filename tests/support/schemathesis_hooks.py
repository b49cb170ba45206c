"""What schemathesis does before it sends a request; its own process imports this."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, HookContext

NAMES = ("qwen", "q", "org/small")


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _kwargs: dict[str, Any]) -> None:
    """Have most requests name a model that exists; follow no log, for that has no end."""
    for values in (case.path_parameters, case.body):
        for field in ("name", "model"):
            said = values.get(field) if isinstance(values, dict) else None
            if isinstance(said, str) and len(said) % 4:
                values[field] = NAMES[len(said) % 4 - 1]
    if case.query and str(case.query.get("follow")).lower() in ("true", "1"):
        del case.query["follow"]
