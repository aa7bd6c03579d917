"""How long to wait before another attempt: exponentially longer, with full jitter."""

from __future__ import annotations

import random as randomness
from collections.abc import Callable


class Backoff:
    """Times to wait between attempts, in seconds, drawn evenly from nothing to a bound.

    The bound begins at `shortest` and doubles with each attempt up to `longest`. Drawn from
    nothing on, because many clients fail at one moment, when a server goes: what spreads their
    attempts most does it best. `random` returns numbers from 0 to 1.
    """

    __slots__ = ("_bound", "_random", "longest", "shortest")

    def __init__(
        self,
        shortest: float,
        longest: float,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.shortest = shortest
        self.longest = longest
        self._random = random
        self._bound = shortest

    def next(self) -> float:
        """How long to wait now."""
        bound = self._bound
        self._bound = min(2 * bound, self.longest)
        return bound * self._random()

    def reset(self) -> None:
        """All is well: the next failure is a first one."""
        self._bound = self.shortest
