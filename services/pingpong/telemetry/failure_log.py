"""Throttles the logs of repeated failures: logged on a change, then once a minute, and at the end.

Pure: `now` is passed in, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

_MAX_CAUSES = 16
"""Maximum causes for a key; the oldest is dropped for a new one."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure to log.

    `count` is the number of occurrences since it was last logged, including this one; `seconds` is
    the time since the last success.
    """

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """The end of failures: their number, and their duration in seconds."""

    count: int
    seconds: float


@dataclass(slots=True)
class _Cause:
    logged_at: float
    unlogged: int = 0


@dataclass(slots=True)
class _State:
    since: float | None = None
    count: int = 0
    is_logged: bool = False
    causes: dict[str, _Cause] = field(default_factory=dict)


class FailureLogThrottle:
    """Decides which of many repeated failures to log.

    A key is what fails (a target), a cause is why. A new cause is logged at once, and again after
    `interval` seconds. Causes that alternate, and failures that alternate with successes, are
    logged once per interval.
    """

    def __init__(self, interval: float = 60.0) -> None:
        self._interval = interval
        self._states: dict[Hashable, _State] = {}

    def failed(self, key: Hashable, cause: str, now: float) -> Failed | None:
        """Record a failure. Returns what to log, or None if it was logged recently."""
        state = self._states.setdefault(key, _State())
        if state.since is None:
            state.since = now
            state.count = 0
        state.count += 1
        known = state.causes.get(cause)
        if known is not None and now - known.logged_at < self._interval:
            known.unlogged += 1
            return None
        count = 1 if known is None else known.unlogged + 1
        # In order of logging, the oldest first.
        state.causes.pop(cause, None)
        if len(state.causes) >= _MAX_CAUSES:
            del state.causes[next(iter(state.causes))]
        state.causes[cause] = _Cause(now)
        state.is_logged = True
        return Failed(count, now - state.since)

    def succeeded(self, key: Hashable, now: float) -> Recovered | None:
        """Record a success. Returns what to log if it ends failures that were logged."""
        state = self._states.get(key)
        if state is None:
            return None
        recovered = None
        if state.since is not None and state.is_logged:
            recovered = Recovered(state.count, now - state.since)
        state.since = None
        state.is_logged = False
        state.causes = {
            text: cause
            for text, cause in state.causes.items()
            if now - cause.logged_at < self._interval
        }
        if not state.causes:
            del self._states[key]
        return recovered

    def forget(self, key: Hashable) -> None:
        """Forget a key."""
        self._states.pop(key, None)
