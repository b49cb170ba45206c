"""Needs what nobody has."""
