"""Ends whoever imports it."""

raise SystemExit("I cannot work like this")
