"""Reads EndpointSlices (discovery.k8s.io/v1): which pods of a service are ready, and at what port.

Pure; a slice is what the API's JSON holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...settings.values import DEFAULT_PORT
from ...webtransport import printable
from .lookups import Endpoint

PREFERRED_PORT = "webtransport"
"""The port's name that is looked for where none is asked for."""

_MAX_NAME = 253

Slice = Mapping[str, Any]


def ready_endpoints(
    slices: Iterable[Slice], host: str, port: int | str | None
) -> tuple[Endpoint, ...]:
    """The endpoints of a service that are ready and don't go, by pod; all have this host name.

    `port` is the number of the pods' port, the name of the service's port, or None for its UDP
    port. A pod of both families is one endpoint. One that is terminating, even if it still serves,
    drains: its sessions should leave.
    """
    pods: dict[tuple[int, str | None], list[str]] = {}
    for each in sorted(slices, key=_name):
        number = _port(each, port)
        if number is None or each.get("addressType") not in ("IPv4", "IPv6"):
            continue
        for endpoint in each.get("endpoints") or ():
            if _is_ready(endpoint.get("conditions") or {}):
                pod = (endpoint.get("targetRef") or {}).get("name")
                if pod is not None:
                    pod = printable(str(pod), _MAX_NAME)  # it becomes a metric's label
                pods.setdefault((number, pod), []).extend(endpoint.get("addresses") or ())
    return tuple(
        Endpoint(host, number, tuple(dict.fromkeys(addresses)), pod)
        for (number, pod), addresses in pods.items()
    )


def _is_ready(conditions: Mapping[str, Any]) -> bool:
    # What isn't said counts as ready, and as not terminating. A service that publishes pods that
    # are not ready says of all of them that they are.
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _port(each: Slice, wanted: int | str | None) -> int | None:
    """The number that the pods of this slice have the port at; None where they have no such."""
    if isinstance(wanted, int):
        return wanted
    ports = [p for p in each.get("ports") or () if p.get("port")]
    udp = [p for p in ports if p.get("protocol") == "UDP"]
    if wanted is not None:
        named = [p for p in (*udp, *ports) if p.get("name") == wanted]
    else:
        if not ports:  # a service without ports: any is right
            return DEFAULT_PORT
        named = [*(p for p in udp if p.get("name") == PREFERRED_PORT), *udp]
    return int(named[0]["port"]) if named else None


def _name(each: Slice) -> str:
    return str((each.get("metadata") or {}).get("name"))
