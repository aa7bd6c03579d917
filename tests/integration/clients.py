"""`pingpong ping` and `pingpong probe` behind one face: what each of them says of a target."""

from __future__ import annotations

import abc
import json
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.network import ADMIN_PORT, Report, Running
from tests.support.network.link import Link
from tests.support.running import Metrics

INTERVAL = 0.1
"""Seconds from one ping to the next."""
SIZE = 300
"""Of pings, in bytes: more than all else in a packet, so that they can be counted by its size."""

_AGAIN = "; connecting again"
_UP_AGAIN = re.compile(r"(?:connected again to \S+|answers again) after ([\d.]+) (ms|s)\b")
_P = "pingpong_client_"
_SLOW = 0.4


@dataclass(frozen=True)
class Account:
    """What became of the pings to a target, as a client says it."""

    sent: int
    answered: int
    """In time or late."""
    late: int
    duplicates: int
    lost: int
    not_sent: int
    skipped: int
    """Slots that passed while the client did not run."""
    slow: bool
    """Whether a round trip took longer than half a second."""
    sessions: int
    outages: int
    outage: float
    """Seconds of all outages together."""


class Client(Running):
    """A client at the client's end of a link, with a ping every `INTERVAL` seconds."""

    @abc.abstractmethod
    def account(self) -> Account:
        """What it says of its pings so far; a `ping` ends with it."""

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """The address that it says it pings."""

    @abc.abstractmethod
    def losses(self) -> list[str]:
        """Why the target was lost, each time."""

    @abc.abstractmethod
    def failures(self) -> list[str]:
        """Why attempts to connect failed."""

    @abc.abstractmethod
    def wait_failure(self) -> str:
        """Wait until connecting has failed for good; the cause, for people."""


class PingClient(Client):
    """A `pingpong ping --json`."""

    def __init__(self, link: Link, url: str, ca: Path) -> None:
        super().__init__(
            link.client,
            *(sys.executable, "-m", "pingpong", "ping", url, "--json", f"--ca={ca}"),
            *(f"--interval={INTERVAL}", f"--size={SIZE}"),
        )

    def account(self) -> Account:
        """The summary."""
        self.send(signal.SIGINT)
        assert self.finish() == 0, self
        report = Report.of(self)
        account = Account(
            sent=report["sent"],
            answered=report["received"],
            late=report["late"],
            duplicates=report["duplicates"],
            lost=report["lost"],
            not_sent=report["send_errors"],
            skipped=report["skipped"],
            slow=report["rtt_ms"]["max"] > 1000 * _SLOW,
            sessions=report["connections"],
            outages=report["outages"],
            outage=report["outage_ms"] / 1000,
        )
        # A person has read of each outage when it was over.
        told = [found for line in self.err if (found := _UP_AGAIN.search(line))]
        seconds = [float(t[1]) / (1000 if t[2] == "ms" else 1) for t in told]
        assert len(seconds) == account.outages, self
        assert sum(seconds) == pytest.approx(account.outage, abs=0.06 * len(seconds)), self
        return account

    @property
    def address(self) -> str:
        """Of the last answer."""
        return str(json.loads(self.out[-1])["from"])

    def losses(self) -> list[str]:
        """As a person reads them."""
        return [line.removesuffix(_AGAIN) for line in self.err if line.endswith(_AGAIN)]

    def failures(self) -> list[str]:
        """All else that a person reads."""
        return [line for line in self.err if _AGAIN not in line and not _UP_AGAIN.search(line)]

    def wait_failure(self) -> str:
        """Wait for its end, and check that it is one in error."""
        assert self.finish() == 2, self
        [failure] = self.failures()
        return failure


class ProbeClient(Client):
    """A `pingpong probe`."""

    def __init__(self, link: Link, url: str, ca: Path) -> None:
        settings = {"TARGETS": url, "CA": ca, "INTERVAL": INTERVAL, "SIZE": SIZE}
        super().__init__(
            link.client,
            *(
                sys.executable,
                "-m",
                "pingpong",
                "probe",
                "--log-format=json",
                f"--admin-port={ADMIN_PORT}",
            ),
            **{f"PINGPONG_{name}": str(value) for name, value in settings.items()},
        )

    def account(self) -> Account:
        """The metrics."""
        metrics = self.metrics()
        rtts = f"{_P}rtt_seconds"
        slow = metrics.total(f"{rtts}_count") - metrics.total(f"{rtts}_bucket", le=str(_SLOW))
        account = Account(
            sent=_count(metrics, "probes_sent_total"),
            answered=_completed(metrics, "ok") + _completed(metrics, "late"),
            late=_completed(metrics, "late"),
            duplicates=_count(metrics, "duplicates_total"),
            lost=_completed(metrics, "lost"),
            not_sent=_completed(metrics, "send_error"),
            skipped=_count(metrics, "schedule_skipped_total"),
            slow=slow > 0,
            sessions=_count(metrics, "connects_total", result="ok"),
            outages=_count(metrics, "outage_seconds_count"),
            outage=metrics.total(f"{_P}outage_seconds_sum"),
        )
        assert metrics.total(f"{_P}session_up") == 1, self
        # Each outage was logged when it began, and when it was over.
        ups: list[dict[str, Any]] = self.events("target_up")
        seconds = [up["outage_seconds"] for up in ups if "outage_seconds" in up]
        assert len(ups) - 1 == len(seconds) == len(self.losses()) == account.outages, self
        assert sum(seconds) == pytest.approx(account.outage, abs=0.001 * (1 + len(seconds))), self
        return account

    @property
    def address(self) -> str:
        """Of the last session."""
        told = [e for e in self.events() if e["event"] in ("target_up", "session_moved")]
        return str(told[-1]["address"])

    def losses(self) -> list[str]:
        """As they are logged."""
        return [str(event["cause"]) for event in self.events("target_down")]

    def failures(self) -> list[str]:
        """As they are logged, at their change."""
        return [str(event["error"]) for event in self.events("connect_failed")]

    def wait_failure(self) -> str:
        """Wait for the first attempt's."""
        return str(self.wait_event("connect_failed")["error"])


VERBS: dict[str, type[PingClient | ProbeClient]] = {"ping": PingClient, "probe": ProbeClient}


def _completed(metrics: Metrics, result: str) -> int:
    return _count(metrics, "probes_completed_total", result=result)


def _count(metrics: Metrics, name: str, **labels: str) -> int:
    return int(metrics.total(f"{_P}{name}", **labels))
