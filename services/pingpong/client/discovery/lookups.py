"""The state of a source's lookups, and when to repeat them. Pure: `now` is passed in, in
seconds."""

from __future__ import annotations

import random as randomness
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address

from ...webtransport import printable

MIN_INTERVAL = 1.0
"""Minimum seconds between lookups of a source, for any TTL and reason."""
MAX_RETRY = 10.0
"""Maximum seconds until the next lookup after a failure."""

_MAX_TEXT = 500
_SPREAD = 0.1
"""Jitter, so that many clients do not ask at the same time."""
_MAX_DOUBLINGS = 16

BOTH: frozenset[int] = frozenset({4, 6})
"""The IP versions."""


class Result(StrEnum):
    """The result of a lookup: the values of a metric's label."""

    OK = "ok"
    EMPTY = "empty"
    """The name or the service exists, but has no address or no ready endpoint."""
    NXDOMAIN = "nxdomain"
    """The name does not exist, as for a headless service without a ready pod."""
    TIMEOUT = "timeout"
    """The name servers, or the API server, did not answer."""
    SERVFAIL = "servfail"
    """The name servers answered with an error."""
    FORBIDDEN = "forbidden"
    """The API server denied the request (401, 403)."""
    ERROR = "error"
    """Any other error: no route to the server, an invalid answer, not in a cluster."""


class DiscoveryError(Exception):
    """A lookup failed; the text says why in one line, without secrets.

    It may contain text of name servers and of the API server.
    """

    def __init__(self, result: Result, text: str) -> None:
        super().__init__(printable(text, _MAX_TEXT))
        self.result = result


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a source: a host and port, and its current addresses.

    `host` is the name in the certificate. `missing` are the IP versions that could not be looked
    up this time: their known addresses stay valid.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    pod: str | None = None
    missing: frozenset[int] = frozenset()

    @property
    def key(self) -> tuple[str, int, str | None]:
        """Identifies the endpoint across answers."""
        return self.host, self.port, self.pod


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a lookup; `ttl` is its time to live in seconds, if it has one.

    `problem` is why the answer is incomplete.
    """

    endpoints: tuple[Endpoint, ...]
    ttl: float | None = None
    problem: DiscoveryError | None = None


class LookupState:
    """The lookups of one source: the last good answer, and when the next lookup is due.

    A lookup is repeated when the TTL has passed, and after `interval` at most. After a failure or
    an empty answer the known endpoints stay: a headless service whose pods all restart does not
    exist for a while. Then lookups are retried with an increasing delay. `random` returns numbers
    from 0 to 1.
    """

    def __init__(
        self, interval: float, now: float, random: Callable[[], float] = randomness.random
    ) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        """The last good answer, with addresses in the order in which they first appeared."""
        self.latest: tuple[Endpoint, ...] = ()
        """The same in the order of the last answer, which name servers rotate."""
        self.due = now
        """When the next lookup is due."""
        self.asked_at: float | None = None
        """When the last lookup ended."""
        self.succeeded_at: float | None = None
        self.result: Result | None = None
        """The result of the last lookup; None before the first one."""
        self.error = ""
        """The error of the last lookup, or empty."""
        self._failures = 0
        self._interval = interval
        self._random = random

    def is_recent(self, now: float) -> bool:
        """Whether the last lookup ended less than `MIN_INTERVAL` ago."""
        return self.asked_at is not None and now - self.asked_at < MIN_INTERVAL

    def succeeded(self, answer: Answer, now: float) -> bool:
        """Process an answer. Returns whether the known endpoints changed."""
        known = {endpoint.key: endpoint for endpoint in self.endpoints}
        there = [
            endpoint for endpoint in answer.endpoints if endpoint.addresses or endpoint.missing
        ]
        latest = tuple(_completed(endpoint, known.get(endpoint.key)) for endpoint in there)
        if not latest or (known and not any(endpoint.addresses for endpoint in latest)):
            self.failed(
                answer.problem or DiscoveryError(Result.EMPTY, "the answer has no addresses"), now
            )
            return False
        if answer.problem is not None:
            self.failed(answer.problem, now)
        else:
            self._failures = 0
            self.result, self.error = Result.OK, ""
            self.asked_at = self.succeeded_at = now
            self.due = now + self._time_to_live(answer.ttl)
        self.latest = latest
        if _content(latest) == _content(self.endpoints):
            return False
        self.endpoints = latest
        return True

    def failed(self, failure: DiscoveryError, now: float) -> None:
        """Record a failure. The known endpoints stay."""
        self._failures += 1
        self.result, self.error = failure.result, str(failure)
        self.asked_at = now
        self.due = now + retry_delay(self._failures, self._interval, self._random())

    def _time_to_live(self, ttl: float | None) -> float:
        # Never before the TTL has passed: a cache would repeat the same answer.
        part = _SPREAD * self._random()
        longest = self._interval * (1 - part)
        wanted = longest if ttl is None else min(ttl * (1 + part), longest)
        return max(wanted, MIN_INTERVAL)


def retry_delay(failures: int, interval: float, random: float) -> float:
    """Seconds until the next attempt after `failures` consecutive failures.

    Between `MIN_INTERVAL` and a bound that doubles each time, by `random` from 0 to 1.
    """
    longest = max(MIN_INTERVAL, min(interval, MAX_RETRY))
    bound = min(MIN_INTERVAL * 2.0 ** min(failures, _MAX_DOUBLINGS), longest)
    return MIN_INTERVAL + (bound - MIN_INTERVAL) * random


def _completed(endpoint: Endpoint, known: Endpoint | None) -> Endpoint:
    """The endpoint, with the known addresses of the IP versions that are missing."""
    if not endpoint.missing or known is None:
        return endpoint
    kept = [a for a in known.addresses if ip_address(a).version in endpoint.missing]
    return replace(endpoint, addresses=tuple(dict.fromkeys((*endpoint.addresses, *kept))))


def _content(endpoints: Sequence[Endpoint]) -> dict[tuple[str, int, str | None], frozenset[str]]:
    return {endpoint.key: frozenset(endpoint.addresses) for endpoint in endpoints}
