"""What is sent, and where: by the settings, and by OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gglib.errors import ConfigurationError
from gglib.settings import Settings
from gglib.settings.telemetry import TelemetrySettings, is_telemetry_installed

__all__ = ["Signals", "check_telemetry", "signals_of"]

_DEFAULT_METRIC_INTERVAL_MS = 60_000


@attrs.frozen(kw_only=True)
class Signals:
    """URLs of a collector; ``None``: that is not sent."""

    traces: str | None = None
    metrics: str | None = None
    metric_interval_s: float = _DEFAULT_METRIC_INTERVAL_MS / 1000

    def __bool__(self) -> bool:
        return self.traces is not None or self.metrics is not None


def check_telemetry(settings: Settings) -> None:
    """Return unless telemetry is asked for that this installation cannot send.

    Raises:
        ConfigurationError: the extra is missing; says how to get it.
    """
    if settings.telemetry.otlp_endpoint and not is_telemetry_installed():
        source = settings.config_file
        raise ConfigurationError(
            "[telemetry] otlp_endpoint needs OpenTelemetry, which is not installed: "
            "pip install 'gglib[otel]'",
            None if source is None else str(source),
        )


def signals_of(settings: TelemetrySettings, environ: Mapping[str, str]) -> Signals:
    """Return what is to be sent.

    Of OpenTelemetry's variables, those are heeded here that the SDK leaves to programs; the
    others it reads itself.
    """
    base = settings.otlp_endpoint.rstrip("/")
    if not base or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Signals()

    def endpoint(signal: str) -> str | None:
        exporters = environ.get(f"OTEL_{signal}_EXPORTER") or "otlp"
        if "otlp" not in (name.strip() for name in exporters.split(",")):
            return None
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return own or f"{base}/v1/{signal.lower()}"

    return Signals(
        traces=endpoint("TRACES"),
        metrics=endpoint("METRICS"),
        metric_interval_s=_interval_s(environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")),
    )


def _interval_s(milliseconds: str) -> float:
    given = int(milliseconds) if milliseconds.isdecimal() else 0
    return (given or _DEFAULT_METRIC_INTERVAL_MS) / 1000
