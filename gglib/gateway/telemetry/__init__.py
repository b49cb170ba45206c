"""Traces and metrics for OpenTelemetry: the extra ``[otel]``, imported where it is switched on."""
