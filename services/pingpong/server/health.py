"""A worker's health, also across a process boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..telemetry.health import Result

EVENT_LOOP = "event_loop"
WORKERS = "workers"
DRAIN = "drain"
SELF_PING = "self_ping"

LIVENESS = (EVENT_LOOP, WORKERS)
"""The checks of liveness: failures that a restart may fix."""
READINESS = (DRAIN, SELF_PING, WORKERS)
"""The checks of readiness: whether new clients are served."""

_UNKNOWN = Result(False, "not known yet")


@dataclass(frozen=True, slots=True)
class Health:
    """The results of all checks, by name."""

    results: Mapping[str, Result] = field(default_factory=dict)

    def result(self, name: str) -> Result:
        """The result of a check; failed if it was not run."""
        return self.results.get(name, _UNKNOWN)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {name: [result.ok, result.reason] for name, result in self.results.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Health:
        """The health from its JSON form."""
        return cls({name: Result(bool(ok), str(reason)) for name, (ok, reason) in value.items()})


def while_draining(stay_ready: bool) -> dict[str, Result]:
    """The checks of readiness while the server drains and the self-ping is off.

    It stops being ready, unless `stay_ready` is set: for load balancers that cut flows to servers
    that are not ready.
    """
    if not stay_ready:
        return {DRAIN: Result(False, "draining: no new sessions")}
    return {
        DRAIN: Result(True, "draining, and set to stay ready: no new sessions"),
        SELF_PING: Result(True, "not while draining"),
    }


def combine(workers: Sequence[Health]) -> Health:
    """The health of several workers: a check passes if it passes for all of them."""
    if len(workers) == 1:
        return workers[0]
    results = {}
    for name in dict.fromkeys(name for health in workers for name in health.results):
        found = [health.result(name) for health in workers]
        failed = [
            f"worker {index}: {result.reason}"
            for index, result in enumerate(found)
            if not result.ok
        ]
        results[name] = Result(not failed, "; ".join(failed) or found[0].reason)
    return Health(results)
