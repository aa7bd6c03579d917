"""What a pod tells Prometheus, and the account that a client gives of its pings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

SENT = "pingpong_client_probes_sent_total"
COMPLETED = "pingpong_client_probes_completed_total"


class Samples:
    """One scrape. Names are those of samples: `…_total`, `…_count`, `…_bucket`."""

    def __init__(self, text: str) -> None:
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append(sample)

    def value(self, name: str, **labels: str) -> float:
        """Of the one series with these labels, whatever others it has.

        Raises AssertionError where there is none, or more than one.
        """
        found = self.series(name, **labels)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} series are {name} with {labels}, not one: {found}")
        return found[0].value

    def sum(self, name: str, **labels: str) -> float:
        """Of all series with these labels; 0 where there are none."""
        return sum(sample.value for sample in self.series(name, **labels))

    def series(self, name: str, **labels: str) -> list[Sample]:
        """All series with these labels."""
        wanted = labels.items()
        return [sample for sample in self._samples[name] if wanted <= sample.labels.items()]

    def labels(self, name: str, label: str) -> set[str]:
        """The values that a label of a metric has."""
        return {sample.labels[label] for sample in self._samples[name] if label in sample.labels}

    @property
    def names(self) -> set[str]:
        """Of all samples."""
        return {name for name, samples in self._samples.items() if samples}

    # What most tests ask of a client.

    @property
    def targets(self) -> set[str]:
        """The targets that a client has series of."""
        return self.labels(SENT, "target")

    @property
    def targets_up(self) -> set[str]:
        """Those that it has a session with which answers."""
        up = self.series("pingpong_client_session_up")
        return {sample.labels["target"] for sample in up if sample.value == 1}

    def account(self, **labels: str) -> Account:
        """What became of a client's pings: of all, or of one target or mode."""
        results = ("ok", "late", "lost", "send_error", "malformed")
        return Account(
            sent=int(self.sum(SENT, **labels)),
            **{result: int(self.sum(COMPLETED, result=result, **labels)) for result in results},
        )


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a client's pings."""

    sent: int
    """Those that left; send errors are not among them."""
    ok: int
    late: int
    """Answered after their timeout."""
    lost: int
    send_error: int
    """Never left: there was no session, for example."""
    malformed: int
    """Answers that belong to no ping; beside the others."""

    @property
    def waiting(self) -> int:
        """Sent, and nothing is known of them yet.

        A ping that was lost is among them until 15 s after its timeout, or the session's end.
        """
        return self.sent - self.ok - self.late - self.lost

    def __sub__(self, before: Account) -> Account:
        """What has been counted since."""
        return Account(
            self.sent - before.sent,
            self.ok - before.ok,
            self.late - before.late,
            self.lost - before.lost,
            self.send_error - before.send_error,
            self.malformed - before.malformed,
        )

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.ok} ok, {self.late} late, {self.lost} lost,"
            f" {self.waiting} waiting, {self.send_error} not sent"
        )
