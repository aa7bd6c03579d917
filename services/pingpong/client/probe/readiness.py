"""Whether the client is ready: whether as many targets are up as the settings require."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ...telemetry.health import Check, Result
from ...webtransport import printable
from .supervisor import TargetStatus

Requirement = Literal["none", "any", "all"]

_MAX_LISTED = 20
"""Maximum targets to list by name."""
_MAX_REASON = 160
"""Maximum characters of a target's reason."""


def target_check(required: Requirement, statuses: Callable[[], Sequence[TargetStatus]]) -> Check:
    """The check `targets`: passes if enough targets are up, and lists those that are not."""
    return Check("targets", lambda: judge(required, statuses()))


def judge(required: Requirement, statuses: Sequence[TargetStatus]) -> Result:
    """The result of the check for these states of the targets."""
    up = sum(status.is_up for status in statuses)
    ok = required == "none" or (
        bool(statuses) and up >= (1 if required == "any" else len(statuses))
    )
    parts = [f"{up} of {len(statuses)} targets are up; required: {required}"]
    # Targets that are down come first.
    ordered = sorted(statuses, key=lambda status: status.is_up)
    parts += [_described(status) for status in ordered[:_MAX_LISTED]]
    if len(ordered) > _MAX_LISTED:
        parts.append(f"and {len(ordered) - _MAX_LISTED} more")
    return Result(ok, "; ".join(parts))


def _described(status: TargetStatus) -> str:
    since = f"for {status.seconds:.0f} s"
    if status.is_up:
        return f"{status.name} up {since}"
    return f"{status.name} down {since} ({printable(status.reason, _MAX_REASON)})"
