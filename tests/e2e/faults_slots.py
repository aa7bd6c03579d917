"""Whether a client has sent, or accounted for, each ping that its schedule asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.e2e.faults_watchers import INTERVAL, Watcher
from tests.e2e.scraping import Account, Samples

_MARGIN = 2
"""Slots: those that begin or end with a scrape."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The pings of a watcher with one target, at a moment."""

    began: float
    ended: float
    """Between these two, by `time.monotonic`, it was scraped."""
    samples: Samples

    @classmethod
    def take(cls, watcher: Watcher) -> Tally:
        """As it is now."""
        began = time.monotonic()
        samples = watcher.scrape()
        return cls(began, time.monotonic(), samples)

    @property
    def account(self) -> Account:
        """What became of its pings."""
        return self.samples.account()

    @property
    def _slots(self) -> float:
        """Those of the schedule; each new session has a ping beside it."""
        skipped = self.samples.value("pingpong_client_schedule_skipped_total")
        sessions = self.samples.sum("pingpong_client_connects_total", result="ok")
        return self.account.sent + self.account.send_error + skipped - sessions

    def assert_complete_since(self, before: Tally) -> None:
        """Every slot since then was sent, or counted as what could not be. Raises AssertionError."""
        slots = self._slots - before._slots
        least = (self.began - before.ended) / INTERVAL - _MARGIN
        most = (self.ended - before.began) / INTERVAL + _MARGIN
        assert least <= slots <= most, f"{slots:g} slots, not {least:.0f} to {most:.0f}"
