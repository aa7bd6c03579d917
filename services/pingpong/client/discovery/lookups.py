"""What is known of a source, and when to ask it again. Pure: `now` is passed in, in seconds."""

from __future__ import annotations

import random as randomness
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address

from ...webtransport import printable

MIN_INTERVAL = 1.0
"""Seconds from one lookup of a source to the next, at least, whatever its TTL and the reason."""
MAX_RETRY = 10.0
"""Seconds to the next lookup after one that failed, at most."""

_MAX_TEXT = 500
_SPREAD = 0.1
"""By how much a time is varied, so that many clients do not ask at one moment."""
_MAX_DOUBLINGS = 16

BOTH: frozenset[int] = frozenset({4, 6})
"""The IP versions."""


class Result(StrEnum):
    """What became of a lookup; the values of a metric's label."""

    OK = "ok"
    EMPTY = "empty"
    """The name or the service is there, and has no address or no ready endpoint."""
    NXDOMAIN = "nxdomain"
    """There is no such name. So it is with a headless service that has no ready pod."""
    TIMEOUT = "timeout"
    """No answer came from the name servers, or from the API server."""
    SERVFAIL = "servfail"
    """The name servers answered that they could not, or would not."""
    FORBIDDEN = "forbidden"
    """The API server does not let this client ask (401, 403)."""
    ERROR = "error"
    """Anything else: no way to the server, nonsense for an answer, not in a cluster."""


class DiscoveryError(Exception):
    """A lookup that gave nothing to use; the text says why in one line, without secrets.

    What name servers and the API server say may be in it.
    """

    def __init__(self, result: Result, text: str) -> None:
        super().__init__(printable(text, _MAX_TEXT))
        self.result = result


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a source leads to: a host and port, and the addresses that it has now.

    `host` is the name that the certificate is for. `missing` are the IP versions whose addresses
    could not be asked for this time: those that were known before still hold.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    pod: str | None = None
    missing: frozenset[int] = frozenset()

    @property
    def key(self) -> tuple[str, int, str | None]:
        """What makes it the same one from one answer to the next."""
        return self.host, self.port, self.pod


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lookup gave; `ttl` is for how many seconds it holds, if that was said.

    `problem` is why something is missing from it.
    """

    endpoints: tuple[Endpoint, ...]
    ttl: float | None = None
    problem: DiscoveryError | None = None


class LookupState:
    """The lookups of one source: the last good answer, and when the next is due.

    An answer is asked for again when its TTL has passed, and after `interval` at most. A failure,
    and an answer that is empty, change nothing of what is known: a headless service whose pods
    all restart has no name for a while. They are followed by further lookups soon, then at growing
    distances. `random` returns numbers from 0 to 1.
    """

    def __init__(
        self, interval: float, now: float, random: Callable[[], float] = randomness.random
    ) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        """The last good answer, in the order in which its addresses were first seen."""
        self.latest: tuple[Endpoint, ...] = ()
        """The same in the order of the last answer: name servers take turns with it."""
        self.due = now
        """When to look up again."""
        self.asked_at: float | None = None
        """When the last lookup ended."""
        self.succeeded_at: float | None = None
        self.result: Result | None = None
        """What became of the last lookup; None before the first one ended."""
        self.error = ""
        """Why the last lookup failed; empty if it did not."""
        self._failures = 0
        self._interval = interval
        self._random = random

    def is_recent(self, now: float) -> bool:
        """Whether the last lookup ended so lately that it is too soon for another one."""
        return self.asked_at is not None and now - self.asked_at < MIN_INTERVAL

    def succeeded(self, answer: Answer, now: float) -> bool:
        """Take an answer in, empty or not. Returns whether what is known has changed by it."""
        known = {endpoint.key: endpoint for endpoint in self.endpoints}
        there = [
            endpoint for endpoint in answer.endpoints if endpoint.addresses or endpoint.missing
        ]
        latest = tuple(_completed(endpoint, known.get(endpoint.key)) for endpoint in there)
        if not latest or (known and not any(endpoint.addresses for endpoint in latest)):
            self.failed(answer.problem or DiscoveryError(Result.EMPTY, "no address is there"), now)
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
        """Take in that a lookup gave nothing; what is known stays."""
        self._failures += 1
        self.result, self.error = failure.result, str(failure)
        self.asked_at = now
        self.due = now + retry_delay(self._failures, self._interval, self._random())

    def _time_to_live(self, ttl: float | None) -> float:
        # Never before the TTL has passed: a cache would only give the same answer once more.
        part = _SPREAD * self._random()
        longest = self._interval * (1 - part)
        wanted = longest if ttl is None else min(ttl * (1 + part), longest)
        return max(wanted, MIN_INTERVAL)


def retry_delay(failures: int, interval: float, random: float) -> float:
    """Seconds from a failure, the `failures`-th in a row, to the next attempt.

    Drawn by `random`, from 0 to 1, between `MIN_INTERVAL` and a bound that doubles each time.
    """
    longest = max(MIN_INTERVAL, min(interval, MAX_RETRY))
    bound = min(MIN_INTERVAL * 2.0 ** min(failures, _MAX_DOUBLINGS), longest)
    return MIN_INTERVAL + (bound - MIN_INTERVAL) * random


def _completed(endpoint: Endpoint, known: Endpoint | None) -> Endpoint:
    """With the addresses of before for the versions that could not be asked for."""
    if not endpoint.missing or known is None:
        return endpoint
    kept = [a for a in known.addresses if ip_address(a).version in endpoint.missing]
    return replace(endpoint, addresses=tuple(dict.fromkeys((*endpoint.addresses, *kept))))


def _content(endpoints: Sequence[Endpoint]) -> dict[tuple[str, int, str | None], frozenset[str]]:
    return {endpoint.key: frozenset(endpoint.addresses) for endpoint in endpoints}
