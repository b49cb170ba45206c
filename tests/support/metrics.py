"""A gateway's metrics, read as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scrape"]


class Scrape:
    """One answer of ``/metrics``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        """Of ours, as they are documented: a histogram's without its endings."""
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            if family.name.startswith("gglib_"):
                ending = "_total" if family.type == "counter" else ""
                self.names.add(family.name + ending)
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] = sample.value

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return a value, or ``None`` where there is no such series."""
        return self._values.get((name, frozenset(labels.items())))

    def labels(self, label: str) -> set[str]:
        """Return every value of a label."""
        return {value for _, pairs in self._values for key, value in pairs if key == label}
