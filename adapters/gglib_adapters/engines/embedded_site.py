"""Where the embedded engine's package is, when it is not in gglib's own environment."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE", "SITE_VARIABLE", "package_in"]

PACKAGE = "xllamacpp"

#: Tells the child process in which folder the package is.
SITE_VARIABLE = "GGLIB_EMBEDDED_SITE"


def package_in(environment: Path) -> Path | None:
    """Return the package's folder in a virtual environment, if it is there."""
    for pattern in ("lib/python3*/site-packages", "Lib/site-packages"):
        for site in sorted(environment.glob(pattern)):
            if (site / PACKAGE / "__init__.py").is_file():
                return site / PACKAGE
    return None
