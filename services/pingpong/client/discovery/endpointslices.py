"""Reads EndpointSlices (discovery.k8s.io/v1): which pods of a Service are ready, and their port.

Pure; a slice is the API's JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...settings.values import DEFAULT_PORT
from ...webtransport import printable
from .lookups import Endpoint

PREFERRED_PORT = "webtransport"
"""The port's name to prefer if the target names none."""

_MAX_NAME = 253

Slice = Mapping[str, Any]


def ready_endpoints(
    slices: Iterable[Slice], host: str, port: int | str | None
) -> tuple[Endpoint, ...]:
    """The endpoints of a Service that are ready and not terminating, by pod.

    All get the host name `host`. `port` is the number of the pods' port, the name of the Service's
    port, or None for its UDP port. A pod with addresses of both families is one endpoint. A
    terminating pod, even if it still serves, drains its sessions.
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
                    pod = printable(str(pod), _MAX_NAME)  # it becomes the label of a metric
                pods.setdefault((number, pod), []).extend(endpoint.get("addresses") or ())
    return tuple(
        Endpoint(host, number, tuple(dict.fromkeys(addresses)), pod)
        for (number, pod), addresses in pods.items()
    )


def _is_ready(conditions: Mapping[str, Any]) -> bool:
    # Missing conditions count as ready and not terminating. For a Service that publishes pods that
    # are not ready, all of them have the condition ready.
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _port(each: Slice, wanted: int | str | None) -> int | None:
    """The port number of the pods of this slice; None if there is no such port."""
    if isinstance(wanted, int):
        return wanted
    ports = [p for p in each.get("ports") or () if p.get("port")]
    udp = [p for p in ports if p.get("protocol") == "UDP"]
    if wanted is not None:
        named = [p for p in (*udp, *ports) if p.get("name") == wanted]
    else:
        if not ports:  # a Service without ports
            return DEFAULT_PORT
        named = [*(p for p in udp if p.get("name") == PREFERRED_PORT), *udp]
    return int(named[0]["port"]) if named else None


def _name(each: Slice) -> str:
    return str((each.get("metadata") or {}).get("name"))
