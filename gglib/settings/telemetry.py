"""Where traces and metrics are sent: ``[telemetry]``, and OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import attrs

from gglib.domain.validation import stating
from gglib.errors import InvalidValue

__all__ = ["ENDPOINT_VARIABLE", "TelemetrySettings", "is_telemetry_installed", "standard_endpoint"]

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_PROTOCOL"
_EXPECTED = "an http:// or https:// URL of an OTLP collector, without user, query or fragment"


@stating({"type": "string", "pattern": r"^(https?://[^?#@]+)?$"})
def _endpoint(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or (value and not _is_endpoint(value)):
        # Whoever wrote a password into it does not want it in a log.
        shown = "…@…" if isinstance(value, str) and "@" in value else value
        raise InvalidValue(attribute.name, shown, _EXPECTED)


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return usable and text.isprintable() and not set(text) & set(" ?#@")


@attrs.frozen(kw_only=True)
class TelemetrySettings:
    """Traces and metrics for OpenTelemetry: ``[telemetry]``, ``GGLIB_TELEMETRY_*``."""

    otlp_endpoint: str = attrs.field(default="", validator=_endpoint)
    """A collector's address for OTLP over HTTP, without ``/v1/traces``; empty: nothing is sent."""


def is_telemetry_installed() -> bool:
    """Whether the extra ``[otel]`` is there."""
    try:
        return all(
            find_spec(name) is not None
            for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


def standard_endpoint(environ: Mapping[str, str]) -> str | None:
    """Return the collector that OpenTelemetry's variables name for every program on a machine.

    ``None`` if there is none that gglib can use: one of another protocol, or no extra.
    """
    named = environ.get(ENDPOINT_VARIABLE, "")
    if not named or not _is_endpoint(named):
        return None
    if environ.get(_PROTOCOL_VARIABLE, "http/protobuf") != "http/protobuf":
        return None
    return named if is_telemetry_installed() else None
