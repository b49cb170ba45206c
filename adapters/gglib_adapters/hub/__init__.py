"""Hubs of models."""
