"""What to log of failures that repeat: when they change, then once a minute, and when they end.

Pure: `now` is passed in, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

_MAX_CAUSES = 16
"""Causes that are remembered for a key; with more, the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure that is to be logged.

    `count` is how often it came since it was last logged, this time included; `seconds` is how long
    nothing has succeeded.
    """

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """Failures that have ended: how many there were, over how many seconds."""

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
    """Decides what to log of failures that may come by the thousand.

    A key is what fails (a target), a cause why. A new cause is logged at once, the same one again
    after `interval` seconds. Causes that alternate are logged once in an interval each, and so is
    something that fails and succeeds by turns.
    """

    def __init__(self, interval: float = 60.0) -> None:
        self._interval = interval
        self._states: dict[Hashable, _State] = {}

    def failed(self, key: Hashable, cause: str, now: float) -> Failed | None:
        """Count a failure. Returns what to log, or None where it was logged lately."""
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
        # In the order in which they were logged, the oldest first.
        state.causes.pop(cause, None)
        if len(state.causes) >= _MAX_CAUSES:
            del state.causes[next(iter(state.causes))]
        state.causes[cause] = _Cause(now)
        state.is_logged = True
        return Failed(count, now - state.since)

    def succeeded(self, key: Hashable, now: float) -> Recovered | None:
        """Count a success. Returns what to log where it ends failures that were logged."""
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
        """Forget a key: its target has left."""
        self._states.pop(key, None)
