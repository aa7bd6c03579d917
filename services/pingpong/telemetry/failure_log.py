"""Failures that repeat: told when they change, then at most once a minute, then when they are over.

Pure: `now` is passed in, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

_MAX_CAUSES = 16
"""Causes that are told apart for a key; with more, the oldest is forgotten."""


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
    """A row of failures that is over: how many there were, over how many seconds."""

    count: int
    seconds: float


@dataclass(slots=True)
class _Cause:
    told_at: float
    untold: int = 0


@dataclass(slots=True)
class _State:
    since: float | None = None
    count: int = 0
    is_told: bool = False
    causes: dict[str, _Cause] = field(default_factory=dict)


class Repeats:
    """What is to be logged of failures that may come by the thousand.

    A key is what fails (a target), a cause why. A new cause is told at once, the same one again
    after `interval`; two that take turns are each told once in an interval, and so is something
    that fails and succeeds in turns.
    """

    def __init__(self, interval: float = 60.0) -> None:
        self._interval = interval
        self._states: dict[Hashable, _State] = {}

    def failed(self, key: Hashable, cause: str, now: float) -> Failed | None:
        """Take in a failure. Returns what to log, or None where it was logged lately."""
        state = self._states.setdefault(key, _State())
        if state.since is None:
            state.since = now
            state.count = 0
        state.count += 1
        known = state.causes.get(cause)
        if known is not None and now - known.told_at < self._interval:
            known.untold += 1
            return None
        count = 1 if known is None else known.untold + 1
        # The one that was told last stands last.
        state.causes.pop(cause, None)
        if len(state.causes) >= _MAX_CAUSES:
            del state.causes[next(iter(state.causes))]
        state.causes[cause] = _Cause(now)
        state.is_told = True
        return Failed(count, now - state.since)

    def succeeded(self, key: Hashable, now: float) -> Recovered | None:
        """Take in a success. Returns what to log where it ends failures that were logged."""
        state = self._states.get(key)
        if state is None:
            return None
        recovered = None
        if state.since is not None and state.is_told:
            recovered = Recovered(state.count, now - state.since)
        state.since = None
        state.is_told = False
        state.causes = {
            text: cause
            for text, cause in state.causes.items()
            if now - cause.told_at < self._interval
        }
        if not state.causes:
            del self._states[key]
        return recovered

    def forget(self, key: Hashable) -> None:
        """Forget a key: its target has left."""
        self._states.pop(key, None)
