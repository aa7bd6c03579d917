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
        return {s.labels[label] for s in self._samples if s.name == name}

    # What most tests ask of `pingpong probe`.

    def completed(self, result: str, **labels: str) -> float:
        return self.total("pingpong_client_probes_completed_total", result=result, **labels)

    def connects(self, result: str, **labels: str) -> float:
        return self.total("pingpong_client_connects_total", result=result, **labels)

    def outages(self) -> tuple[float, float]:
        """How many there were that are over, and their seconds all together."""
        name = "pingpong_client_outage_seconds"
        return self.total(f"{name}_count"), self.total(f"{name}_sum")
