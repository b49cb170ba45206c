"""``gglib doctor``: what is wrong here, and how to mend it. One module for each group of looks."""

from __future__ import annotations

from gglib.cli.doctor.examination import doctor

__all__ = ["doctor"]
