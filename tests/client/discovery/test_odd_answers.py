"""Answers with unexpected content: none of it gets into a URL, a label or a terminal."""

from __future__ import annotations

import json

import pytest

from pingpong.client.discovery.destinations import destinations, read_sources
from pingpong.client.discovery.endpointslices import ready_endpoints
from pingpong.client.discovery.lookups import DiscoveryError, Endpoint, Result
from pingpong.client.discovery.resolver import Resolver
from tests.support.kubernetes_api import endpoint, endpoint_slice
from tests.support.nameserver import NameServer

SERVICE = "_webtransport._udp.a.test"
ODD = (
    *(r"evil.test/ping\?x\#", r"me@evil.test", r"evil.test\:1", r"a\032b.test", r"\027[2J.test"),
    *(r"\226\128\174.test", r"a\.b.test", r"%2f.test", r"\000.test", r"[\:\:1]", r"-a.test"),
)


@pytest.mark.parametrize("target", ODD)
async def test_a_record_that_leads_to_no_host_is_left_out_and_reported(
    target: str, names: NameServer, resolver: Resolver
) -> None:
    names.set(SERVICE, "SRV", f"0 0 1 {target}.", "0 0 2 b.test.")
    names.set("b.test", "A", "10.0.0.1")
    found = await resolver.services(SERVICE)
    assert found.endpoints == (Endpoint("b.test", 2, ("10.0.0.1",)),)
    assert found.problem is not None
    assert found.problem.result is Result.ERROR
    text = str(found.problem)
    assert text.startswith(f"the SRV record {SERVICE} leads to ")
    assert text.isprintable()
    names.set(SERVICE, "SRV", f"0 0 1 {target}.")
    with pytest.raises(DiscoveryError) as failed:
        await resolver.services(SERVICE)
    assert failed.value.result is Result.ERROR


def test_what_a_server_says_is_printable_and_short() -> None:
    text = str(DiscoveryError(Result.ERROR, "answered \x1b[2J\r\n" + "x" * 100_000))
    assert text.startswith(r"answered \x1b[2J\r\nxx")
    assert text.isprintable()
    assert len(text) <= 500


@pytest.mark.parametrize(
    ("pod", "name"),
    [
        ("a\x1b[2J\nb", r"a\x1b[2J\nb"),
        ("\ud800", r"\ud800"),
        ("x" * 1000, "x" * 252 + "…"),
        (7, "7"),
        ({"a": "b"}, "{'a': 'b'}"),
    ],
)
def test_a_name_that_is_no_pods(pod: object, name: str) -> None:
    made = json.loads(json.dumps(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod"))))
    made["endpoints"][0]["targetRef"]["name"] = pod
    endpoints = ready_endpoints([made], "svc.ns.svc", None)
    (source,) = read_sources(["endpointslice://ns/svc"])
    (found,) = destinations(source, endpoints, per_address=True, is_only_service=True)
    assert found.name == name
    found.name.encode()
