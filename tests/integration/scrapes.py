"""What a service tells Prometheus, as tests ask for it."""

from __future__ import annotations

from tests.integration.network import Metrics


class Scrape(Metrics):
    """One scrape."""

    def above(self, name: str, bound: float, **labels: str) -> float:
        """How many of what a histogram has observed are above one of its bounds."""
        within = [
            sample.value
            for sample in self._samples
            if sample.name == f"{name}_bucket"
            and labels.items() <= sample.labels.items()
            and float(sample.labels["le"]) == bound
        ]
        assert within, f"no bucket {bound} of {name} with {labels}"
        return self.total(f"{name}_count", **labels) - sum(within)

    def labels(self, name: str, label: str) -> set[str]:
        """The values that a label of a metric has."""
        return {value for (value,) in self.label_sets(name, label)}

    def label_sets(self, name: str, *labels: str) -> set[tuple[str, ...]]:
        """The values that several labels of a metric have together."""
        return {tuple(s.labels[label] for label in labels) for s in self._samples if s.name == name}

    def series(self) -> set[tuple[str, ...]]:
        """All time series: their names, and the names and values of their labels."""
        return {(s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))) for s in self._samples}

    # What most tests ask of `pingpong probe`.

    def completed(self, result: str, **labels: str) -> float:
        return self.total("pingpong_client_probes_completed_total", result=result, **labels)

    def connects(self, result: str, **labels: str) -> float:
        return self.total("pingpong_client_connects_total", result=result, **labels)

    def outages(self) -> tuple[float, float]:
        """How many there were that are over, and their seconds all together."""
        name = "pingpong_client_outage_seconds"
        return self.total(f"{name}_count"), self.total(f"{name}_sum")
