"""The user's token for the Hugging Face hub, from where its own tools keep it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DEFAULT_ENDPOINT", "endpoint_of", "find_token"]

DEFAULT_ENDPOINT = "https://huggingface.co"

_MAX_TOKEN_BYTES = 4096


def endpoint_of(environ: Mapping[str, str] = os.environ) -> str:
    """Return the hub's address, without a slash at its end: ``HF_ENDPOINT``, or the public one."""
    return environ.get("HF_ENDPOINT", "").strip().rstrip("/") or DEFAULT_ENDPOINT


def find_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the token, or ``None`` if there is none.

    Source: huggingface_hub 2.4, ``get_token``: ``HF_TOKEN``, then the older
    ``HUGGING_FACE_HUB_TOKEN``, then the file that ``hf auth login`` writes.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if (token := _clean(environ.get(name, ""))) is not None:
            return token
    try:
        with _token_file(environ).open("rb") as file:
            return _clean(file.read(_MAX_TOKEN_BYTES).decode("ascii", "replace"))
    except OSError:
        return None


def _token_file(environ: Mapping[str, str]) -> Path:
    if path := environ.get("HF_TOKEN_PATH"):
        return Path(path).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser() / "token"
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "token"


def _clean(text: str) -> str | None:
    """Return a token that may stand in a header, or ``None``."""
    token = text.strip()
    return token if token and token.isascii() and token.isprintable() else None
