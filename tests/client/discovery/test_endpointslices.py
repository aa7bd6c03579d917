from __future__ import annotations

from typing import Any

import pytest

from pingpong.client.discovery.endpointslices import ready_endpoints
from pingpong.client.discovery.lookups import Endpoint
from tests.support.kubernetes_api import endpoint, endpoint_slice, port

HOST = "svc.ns.svc"


def ready(*slices: dict[str, Any], of: int | str | None = None) -> tuple[Endpoint, ...]:
    return ready_endpoints(slices, HOST, of)


def test_pods_that_are_ready() -> None:
    assert ready(
        endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1"), endpoint("10.0.0.2", pod="b"))
    ) == (Endpoint(HOST, 4433, ("10.0.0.1",), "pod-1"), Endpoint(HOST, 4433, ("10.0.0.2",), "b"))


@pytest.mark.parametrize(
    ("conditions", "is_in"),
    [
        ({"ready": True}, True),
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": None}, True),  # nobody knows: most should take it for ready
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),  # drains
        ({"ready": False, "serving": False, "terminating": True}, False),
        # A service that publishes addresses that are not ready says so of those that go, too.
        ({"ready": True, "serving": True, "terminating": True}, False),
    ],
)
def test_conditions(conditions: dict[str, Any], is_in: bool) -> None:
    found = ready(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1", **conditions)))
    assert bool(found) is is_in


def test_the_slices_of_both_families_make_one_endpoint_a_pod() -> None:
    assert ready(
        endpoint_slice("svc-b", endpoint("fd00::1", pod="pod-1"), family="IPv6"),
        endpoint_slice("svc-a", endpoint("10.0.0.1", pod="pod-1")),
    ) == (Endpoint(HOST, 4433, ("10.0.0.1", "fd00::1"), "pod-1"),)


def test_a_pod_in_two_slices_counts_once() -> None:
    """As it does while the control plane moves it from one to the other."""
    assert ready(
        endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")),
        endpoint_slice("svc-2", endpoint("10.0.0.1", pod="pod-1")),
    ) == (Endpoint(HOST, 4433, ("10.0.0.1",), "pod-1"),)


def test_endpoints_that_are_no_pods() -> None:
    assert ready(endpoint_slice("svc-1", endpoint("10.0.0.1"), endpoint("10.0.0.2"))) == (
        Endpoint(HOST, 4433, ("10.0.0.1", "10.0.0.2")),
    )


def test_names_are_no_addresses() -> None:
    assert ready(endpoint_slice("svc-1", endpoint("a.test"), family="FQDN")) == ()


HTTP = port(8080, "http", "TCP")
QUIC = port(4434, "quic")


@pytest.mark.parametrize(
    ("ports", "of", "number"),
    [
        ([HTTP, QUIC], None, 4434),
        ([QUIC, port(4435, "webtransport")], None, 4435),
        ([HTTP, QUIC], "quic", 4434),
        ([HTTP, port(4436, "http")], "http", 4436),  # UDP, of two with one name
        ([port(4433, "quic", "TCP")], "quic", 4433),  # who asked for it gets it
        ([HTTP, QUIC], 9999, 9999),
        ([HTTP, QUIC], "other", None),
        ([HTTP], None, None),
        ([], None, 4433),
        ([port(None)], None, 4433),
        ([], "quic", None),
    ],
)
def test_ports(ports: list[dict[str, Any]], of: int | str | None, number: int | None) -> None:
    found = ready(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1"), ports=ports), of=of)
    assert [each.port for each in found] == ([] if number is None else [number])


def test_each_slice_has_its_own_number_for_a_port() -> None:
    found = ready(
        endpoint_slice("svc-1", endpoint("10.0.0.1", pod="old"), ports=[port(4433, "quic")]),
        endpoint_slice("svc-2", endpoint("10.0.0.2", pod="new"), ports=[port(4444, "quic")]),
        of="quic",
    )
    assert [(each.pod, each.port) for each in found] == [("old", 4433), ("new", 4444)]


def test_what_the_api_leaves_out_or_sets_to_null() -> None:
    bare = {"metadata": None, "addressType": "IPv4", "ports": None, "endpoints": None}
    null = {"addresses": None, "conditions": None, "targetRef": None}
    assert ready(bare, {}, {**bare, "endpoints": [null, {}]}) == (Endpoint(HOST, 4433, ()),)
