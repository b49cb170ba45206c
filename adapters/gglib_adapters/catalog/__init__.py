"""The catalog and the registry in SQLite."""
