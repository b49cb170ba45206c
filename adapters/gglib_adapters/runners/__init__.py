"""Runners: where servers live."""
