"""Pods, as tests look at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Pod:
    """A pod at one moment."""

    name: str
    uid: str
    part: str
    """Its component, `server` or `client`, and so the name of its container."""
    node: str
    """"" before it has one."""
    address: str
    """"" before it has one."""
    phase: str
    """Pending, Running, Succeeded, Failed or Unknown."""
    is_ready: bool
    is_leaving: bool
    """Whether it is being deleted."""
    restarts: int
    """Of all its containers."""
    found: Any = field(repr=False, compare=False)
    """As the API gave it, a V1Pod."""

    @classmethod
    def of(cls, found: Any) -> Pod:
        """What the API says of a pod, a V1Pod."""
        metadata, status = found.metadata, found.status
        conditions = {each.type: each.status for each in status.conditions or ()}
        return cls(
            name=metadata.name,
            uid=metadata.uid,
            part=(metadata.labels or {}).get("app.kubernetes.io/component", ""),
            node=found.spec.node_name or "",
            address=status.pod_ip or "",
            phase=status.phase,
            is_ready=status.phase == "Running" and conditions.get("Ready") == "True",
            is_leaving=metadata.deletion_timestamp is not None,
            restarts=sum(each.restart_count for each in status.container_statuses or ()),
            found=found,
        )

    def __str__(self) -> str:
        return self.name
