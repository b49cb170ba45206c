"""Engines: how a server is started."""
