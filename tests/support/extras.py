"""What only some installations have."""

from __future__ import annotations

import importlib.util
import os

import pytest

__all__ = ["require_embedded_engine"]


def require_embedded_engine() -> None:
    """Skip the test without the extra, unless the run must have it."""
    if importlib.util.find_spec("xllamacpp") is None:
        reason = "xllamacpp is not installed"
        if "engine" in os.environ.get("GGLIB_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
