from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.client.discovery.destinations import (
    Destination,
    Source,
    TargetLimit,
    destinations,
    read_sources,
)
from pingpong.client.discovery.lookups import Endpoint


def read(text: str) -> Source:
    (source,) = read_sources([text])
    return source


def made(
    text: str, *endpoints: Endpoint, per_address: bool = False, alone: bool = True
) -> list[Destination]:
    source = read(text)
    return list(destinations(source, endpoints, per_address=per_address, is_only_service=alone))


# Reading the setting


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("https://a.test:4433/ping", Source("host", "a.test:4433", "a.test", "/ping", 4433)),
        ("https://a.test", Source("host", "a.test:443", "a.test", "/", 443)),
        ("https://a.test./echo", Source("host", "a.test:443/echo", "a.test.", "/echo", 443)),
        ("https://10.0.0.7:1/", Source("address", "10.0.0.7:1", "10.0.0.7", "/", 1)),
        ("https://[fd00::1]:1/", Source("address", "[fd00::1]:1", "fd00::1", "/", 1)),
        (
            "https://[fe80::1%eth0]:1/",
            Source("address", "[fe80::1%eth0]:1", "fe80::1%eth0", "/", 1),
        ),
        ("srv://_s._udp.a.test", Source("srv", "_s._udp.a.test", "_s._udp.a.test")),
        ("srv://_s._udp.a.test/x", Source("srv", "_s._udp.a.test/x", "_s._udp.a.test", "/x")),
        ("endpointslice://ns/svc", Source("endpointslice", "ns/svc", "svc", namespace="ns")),
        (
            "endpointslice://ns/svc:quic",
            Source("endpointslice", "ns/svc:quic", "svc", port="quic", namespace="ns"),
        ),
        (
            "endpointslice://ns/svc:4434/echo",
            Source("endpointslice", "ns/svc:4434/echo", "svc", "/echo", 4434, "ns"),
        ),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert read(text) == source


@pytest.mark.parametrize(
    "text", ["", "a.test", "http://a.test", "https://", "srv://", "endpointslice://ns", "x://y"]
)
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        read(text)


def test_the_final_dot_of_a_name_is_used_for_the_lookup_only() -> None:
    source = read("https://a.test.:4433/ping")
    assert (source.name, source.host, source.label) == ("a.test.", "a.test", "a.test:4433")
    (found,) = made("https://a.test.:4433/ping", Endpoint("a.test", 4433, ("10.0.0.1",)))
    assert found.url == "https://a.test:4433/ping"


def test_what_follows_the_question_mark_is_in_the_url_and_in_no_name() -> None:
    url = "https://a.test:4433/echo?token=s3cret"
    (found,) = made(url, Endpoint("a.test", 4433, ()))
    assert found == Destination("a.test:4433/echo", url, ())


def test_sources_that_only_a_query_tells_apart_are_numbered() -> None:
    sources = read_sources(["https://a.test/?x=1", "https://a.test/?x=2", "https://a.test/?x=1"])
    assert [source.label for source in sources] == ["a.test:443", "a.test:443#2"]


def test_targets_that_only_a_query_tells_apart_have_names_of_their_own() -> None:
    """Also those that an SRV record leads to: which ones is not known in advance."""
    sources = read_sources(
        [
            *("https://a.test:1/ping", "srv://_s._udp.b.test/ping?s3cret=1"),
            *("srv://_s._udp.c.test/ping?s3cret=2", "https://d.test:1/ping?s3cret=3"),
            "endpointslice://ns/svc/ping?s3cret=3",
        ]
    )
    names: dict[str, str] = {}
    for source in sources:
        endpoint = Endpoint("a.test", 1, ("10.0.0.1", "10.0.0.2"), "pod-1")
        for per_address in (False, True):
            for made in destinations(
                source, [endpoint], per_address=per_address, is_only_service=True
            ):
                assert names.setdefault(made.name, made.url) == made.url
                assert "s3cret" not in made.name
    assert {name for name in names if "[" not in name} == {
        *("a.test:1", "a.test:1#2", "a.test:1#3", "d.test:1#4", "ns/svc", "pod-1"),
    }
    assert [source.label for source in sources] == [
        *("a.test:1", "_s._udp.b.test#2", "_s._udp.c.test#3", "d.test:1#4", "ns/svc"),
    ]


def test_queries_of_names_that_differ_anyway_are_not_numbered() -> None:
    sources = read_sources(["https://a.test/?x=1", "https://b.test/?x=2", "srv://_s._udp.b.test/x"])
    assert [source.label for source in sources] == ["a.test:443", "b.test:443", "_s._udp.b.test/x"]


def test_the_same_source_is_taken_once() -> None:
    assert len(read_sources(["https://a.test:4433/ping", "https://a.test.:4433/ping"])) == 1


# Names and URLs

POD_1 = Endpoint("svc.ns.svc", 4433, ("fd00::1", "10.0.0.1"), "pod-1")
POD_2 = Endpoint("svc.ns.svc", 4433, ("10.0.0.2",), "pod-2")


def test_a_name_is_one_target_with_all_its_addresses_families_in_turns() -> None:
    endpoint = Endpoint("a.test", 4433, ("fd00::1", "fd00::2", "10.0.0.1"))
    assert made("https://a.test:4433/ping", endpoint) == [
        Destination("a.test:4433", "https://a.test:4433/ping", ("fd00::1", "10.0.0.1", "fd00::2"))
    ]


def test_per_address_a_name_is_a_target_for_each_sorted_by_number() -> None:
    endpoint = Endpoint("a.test", 4433, ("fd00::1", "10.0.0.10", "10.0.0.9"))
    url = "https://a.test:4433/echo"
    assert made(url, endpoint, per_address=True) == [
        Destination("a.test:4433/echo[10.0.0.9]", url, ("10.0.0.9",)),
        Destination("a.test:4433/echo[10.0.0.10]", url, ("10.0.0.10",)),
        Destination("a.test:4433/echo[fd00::1]", url, ("fd00::1",)),
    ]


@pytest.mark.parametrize("per_address", [False, True])
def test_an_address_is_its_own_name(per_address: bool) -> None:
    url = "https://[fe80::1%eth0]:4433/ping"
    endpoint = Endpoint("fe80::1%eth0", 4433, ("fe80::1%eth0",))
    assert made(url, endpoint, per_address=per_address) == [
        Destination("[fe80::1%eth0]:4433", url, ("fe80::1%eth0",))
    ]


def test_the_usual_port_is_in_the_name_and_not_in_the_url() -> None:
    (found,) = made("https://a.test/x", Endpoint("a.test", 443, ("10.0.0.1",)))
    assert (found.name, found.url) == ("a.test:443/x", "https://a.test/x")


def test_each_srv_record_is_a_target() -> None:
    records = (Endpoint("a.test", 1, ("10.0.0.1", "10.0.0.2")), Endpoint("b.test", 2, ()))
    assert made("srv://_s._udp.test", *records) == [
        Destination("a.test:1", "https://a.test:1/ping", ("10.0.0.1", "10.0.0.2")),
        Destination("b.test:2", "https://b.test:2/ping", ()),
    ]
    assert made("srv://_s._udp.test/echo", *records, per_address=True) == [
        Destination("a.test:1/echo[10.0.0.1]", "https://a.test:1/echo", ("10.0.0.1",)),
        Destination("a.test:1/echo[10.0.0.2]", "https://a.test:1/echo", ("10.0.0.2",)),
    ]


def test_a_service_is_one_target() -> None:
    assert made("endpointslice://ns/svc", POD_2, POD_1) == [
        Destination("ns/svc", "https://svc.ns.svc:4433/ping", ("10.0.0.2", "fd00::1", "10.0.0.1"))
    ]


def test_per_address_a_service_is_a_target_for_each_pod() -> None:
    url = "https://svc.ns.svc:4433/ping"
    assert made("endpointslice://ns/svc", POD_2, POD_1, per_address=True) == [
        Destination("pod-1", url, ("fd00::1", "10.0.0.1")),
        Destination("pod-2", url, ("10.0.0.2",)),
    ]


def test_pods_of_several_services_have_the_service_in_their_names() -> None:
    found = made("endpointslice://ns/svc:quic", POD_1, per_address=True, alone=False)
    assert [each.name for each in found] == ["ns/svc:quic[pod-1]"]


def test_endpoints_that_are_no_pods_are_named_by_address() -> None:
    endpoint = Endpoint("svc.ns.svc", 4433, ("10.0.0.2", "10.0.0.1"))
    found = made("endpointslice://ns/svc", endpoint, per_address=True)
    assert [each.name for each in found] == ["ns/svc[10.0.0.1]", "ns/svc[10.0.0.2]"]


def test_while_pods_have_different_ports_the_others_stand_apart() -> None:
    moved = Endpoint("svc.ns.svc", 4444, ("10.0.0.3",), "pod-3")
    assert made("endpointslice://ns/svc", moved, POD_2) == [
        Destination("ns/svc", "https://svc.ns.svc:4433/ping", ("10.0.0.2",)),
        Destination("ns/svc[4444]", "https://svc.ns.svc:4444/ping", ("10.0.0.3",)),
    ]


# Not too many


def named(*names: str) -> list[Destination]:
    return [Destination(name, f"https://{name}/", ()) for name in names]


def test_the_first_ones_are_taken() -> None:
    cap = TargetLimit(2)
    assert list(cap.admit(named("a", "b", "c"))) == ["a", "b"]
    assert cap.left_out == 1


def test_who_is_in_stays_in_when_another_comes_before_it() -> None:
    cap = TargetLimit(2)
    cap.admit(named("b", "c"))
    assert list(cap.admit(named("a", "b", "c"))) == ["b", "c"]
    assert list(cap.admit(named("a", "c"))) == ["a", "c"]
    assert cap.left_out == 0


def test_of_one_name_the_first_is_taken() -> None:
    first, second = Destination("a", "https://a/1", ()), Destination("a", "https://a/2", ())
    cap = TargetLimit(2)
    assert cap.admit([first, second]) == {"a": first}
    assert cap.left_out == 0


@given(st.integers(1, 5), st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True)))
def test_the_limit_is_kept_and_used_and_admitted_targets_stay(
    limit: int, rounds: list[list[str]]
) -> None:
    cap = TargetLimit(limit)
    before: set[str] = set()
    for names in rounds:
        inside = set(cap.admit(named(*names)))
        assert len(inside) == min(limit, len(names))
        assert before & set(names) <= inside
        assert cap.left_out == len(names) - len(inside)
        before = inside
