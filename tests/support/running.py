"""Runs things as processes, reads what they say while they run, and asks what they measure."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import environment

PATIENCE = 30.0
"""Seconds after which what is waited for does not come any more."""
LIFETIME = 90.0
"""Seconds after which a process that is to end by itself has hung."""


def wait_until(
    condition: Callable[[], object], what: Callable[[], object] | str, timeout: float = PATIENCE
) -> float:
    """Wait until a condition holds; when it was found to, as `time.monotonic` has it.

    Raises AssertionError, which says `what` was waited for.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, (
            f"not within {timeout:g} s: {what if isinstance(what, str) else what()}"
        )
        time.sleep(0.005)
    return time.monotonic()


class Running:
    """A process; what it writes is read as it comes. Killed at the latest at exit.

    With `stderr` standard error is that file's, and no event can be read.
    """

    def __init__(self, *words: str, stderr: Path | None = None, environ: Mapping[str, str]) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        with contextlib.ExitStack() as stack:
            file = subprocess.PIPE if stderr is None else stack.enter_context(stderr.open("wb", 0))
            self.popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**environment(), **environ},
                start_new_session=True,
            )
        streams = ((self.popen.stdout, self.out), (self.popen.stderr, self.err))
        self._readers = [
            threading.Thread(target=_read, args=(stream, lines), daemon=True)
            for stream, lines in streams
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    # What it says.

    def events(self, name: str | None = None, **facts: Any) -> list[dict[str, Any]]:
        """What it has logged so far, or what of it has this name and these facts."""
        found: list[dict[str, Any]] = []
        for line in [*self.out, *self.err]:
            if line.startswith("{"):
                event = json.loads(line)
                if name in (None, event.get("event")) and facts.items() <= event.items():
                    found.append(event)
        return [event for event in found if "event" in event]

    def wait_event(self, name: str, nth: int = 1, **facts: Any) -> dict[str, Any]:
        """The first event of this name and these facts, or the second, and so on."""
        self.wait(lambda: len(self.events(name, **facts)) >= nth, f"{name!r} {facts} is logged")
        return self.events(name, **facts)[nth - 1]

    def wait_line(self, text: str) -> str:
        """The first line of stdout that contains `text`."""

        def found() -> list[str]:
            return [line for line in list(self.out) if text in line]

        self.wait(found, f"{text!r} is said")
        return found()[0]

    def wait(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait until a condition holds; AssertionError where it does not, or the process ends."""

        def holds() -> bool:
            if condition():
                return True
            assert self.popen.poll() is None, f"has ended before {what}: {self!r}"
            return False

        wait_until(holds, lambda: f"{what}: {self!r}", timeout)

    # Its admin port.

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A connection to its admin port."""
        raise NotImplementedError

    def ask(self, path: str, timeout: float = PATIENCE) -> tuple[int, str]:
        """What its admin port answers: status and text."""
        with contextlib.closing(self.connection(timeout)) as client:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()

    def get(self, path: str) -> str:
        """What its admin port answers with status 200."""
        status, text = self.ask(path)
        assert status == 200, text
        return text

    def metrics(self) -> Metrics:
        """What it tells Prometheus now."""
        return Metrics(self.get("/metrics"))

    def wait_metrics(
        self, condition: Callable[[Metrics], object], what: str, timeout: float = PATIENCE
    ) -> Metrics:
        """Scrape until a condition holds; what was scraped then."""
        found: list[Metrics] = []

        def holds() -> object:
            with contextlib.suppress(ConnectionRefusedError):
                found[:] = [self.metrics()]
            return found and condition(found[0])

        self.wait(holds, what, timeout)
        return found[0]

    def waited(self) -> float:
        """Seconds that it could have run in, had other processes not had the CPU."""
        return int(Path(f"/proc/{self.popen.pid}/schedstat").read_text().split()[1]) / 1e9

    # Its end.

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """End it here and now."""
        self.popen.kill()
        self.finish()

    def finish(self, timeout: float = LIFETIME) -> int:
        """Wait for its end: the exit status."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end: {self!r}") from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.finish()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        tail = "\n".join([*self.out[-20:], *self.err[-40:]])
        return f"{self.popen.args!r} ({self.popen.poll()}):\n{tail}"


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; AssertionError where there is none."""
        found = [
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"no {name} with {labels}"
        return sum(found)

    def mean(self, name: str, **labels: str) -> float:
        """The mean of what a histogram has observed."""
        return self.total(f"{name}_sum", **labels) / self.total(f"{name}_count", **labels)

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
