"""A client, scraped all the time: what targets it had, and their accounts until they left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from tests.e2e.scraping import Account, Samples


@dataclass(frozen=True, slots=True)
class Moment:
    """One scrape."""

    at: float
    """When it was there, by `time.monotonic`."""
    samples: Samples


class Following:
    """Scrapes in a thread of its own, from `with` to its end, which adds a last scrape.

    A client removes a target's series with the target: `accounts` still has them. A scrape
    that fails is left out, and counted in `failures`.
    """

    def __init__(self, scrape: Callable[[], Samples], interval: float) -> None:
        self.moments: list[Moment] = []
        """Every scrape, in order."""
        self.failures = 0
        self._scrape = scrape
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Following:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._take()

    @property
    def targets(self) -> set[str]:
        """All that there ever were."""
        return {name for moment in list(self.moments) for name in moment.samples.targets}

    def accounts(self, target: str) -> list[Account]:
        """Those that were given of a target, in order; the last ones before it left, too."""
        moments = [each for each in list(self.moments) if target in each.samples.targets]
        return [moment.samples.account(target=target) for moment in moments]

    def assert_none_lost(self, target: str) -> None:
        """None was lost, and none waited in all of the last scrapes, as one without an answer would.

        The account of a target that leaves goes with it, long before a ping counts as lost.
        """
        accounts = self.accounts(target)
        last = accounts[-1]
        assert (last.lost, last.send_error, last.malformed) == (0, 0, 0), f"{target}: {last}"
        assert min(each.waiting for each in accounts[-4:]) == 0, f"{target}: {accounts[-4:]}"
        assert self.failures <= 2, f"{self.failures} scrapes failed"

    def first(self, condition: Callable[[Samples], bool], *, since: float = 0.0) -> float | None:
        """When a scrape first met the condition, by `time.monotonic`; None where none did."""
        for moment in list(self.moments):
            if moment.at >= since and condition(moment.samples):
                return moment.at
        return None

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._take()

    def _take(self) -> None:
        try:
            samples = self._scrape()
        except (AssertionError, ApiException, HTTPError):
            self.failures += 1
        else:
            self.moments.append(Moment(time.monotonic(), samples))
