"""LookupState against a real name server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pingpong.client.discovery import resolver as resolvers
from pingpong.client.discovery.hosts import HostsFile, SystemLookups
from pingpong.client.discovery.lookups import BOTH, DiscoveryError, Endpoint, Result
from pingpong.client.discovery.resolver import HostAddresses, Resolver
from tests.client.discovery.finding import eventually
from tests.support.nameserver import NameServer

MakeResolver = Callable[..., Resolver]

KUBERNETES = (
    "search ns.svc.cluster.test svc.cluster.test cluster.test example.test",
    "options ndots:5",
)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "_LIFETIME", 0.2)


async def fails(resolver: Resolver, name: str) -> tuple[Result, str]:
    with pytest.raises(DiscoveryError) as failed:
        await resolver.addresses(name)
    assert "\n" not in str(failed.value)
    return failed.value.result, str(failed.value)


# Addresses


async def test_addresses_of_both_families_in_the_name_servers_order(
    names: NameServer, resolver: Resolver
) -> None:
    names.set("a.test", "A", "10.0.0.2", "10.0.0.1", ttl=20)
    names.set("a.test", "AAAA", "fd00::2", "fd00::1", ttl=10)
    assert await resolver.addresses("a.test") == HostAddresses(
        ("fd00::2", "fd00::1", "10.0.0.2", "10.0.0.1"), 10
    )


@pytest.mark.parametrize(("rdtype", "address"), [("A", "10.0.0.1"), ("AAAA", "fd00::1")])
async def test_one_family_is_enough(
    names: NameServer, resolver: Resolver, rdtype: str, address: str
) -> None:
    names.set("a.test", rdtype, address, ttl=7)
    assert await resolver.addresses("a.test") == HostAddresses((address,), 7)


async def test_an_alias_is_followed_and_its_ttl_counts(
    names: NameServer, resolver: Resolver
) -> None:
    names.set("a.test", "CNAME", "b.test.", ttl=3)
    names.set("b.test", "A", "10.0.0.1", ttl=30)
    assert await resolver.addresses("a.test") == HostAddresses(("10.0.0.1",), 3)


async def test_a_large_answer_comes_over_tcp(names: NameServer, resolver: Resolver) -> None:
    many = tuple(f"10.0.{number // 250}.{number % 250}" for number in range(1, 400))
    names.set("a.test", "A", *many)
    assert (await resolver.addresses("a.test")).addresses == many
    assert any(query.is_tcp for query in names.queries)


async def test_an_answer_cut_short_is_asked_for_over_tcp(
    names: NameServer, resolver: Resolver
) -> None:
    names.set("a.test", "A", "10.0.0.1")
    names.truncates = True
    assert (await resolver.addresses("a.test")).addresses == ("10.0.0.1",)


async def test_the_address_of_a_filter_is_none(names: NameServer, resolver: Resolver) -> None:
    names.set("a.test", "A", "0.0.0.0")
    names.set("a.test", "AAAA", "::")
    assert await fails(resolver, "a.test") == (Result.EMPTY, "a.test has no address")


# Failures


async def test_a_name_that_does_not_exist(resolver: Resolver) -> None:
    assert await fails(resolver, "a.test") == (Result.NXDOMAIN, "a.test does not exist")


async def test_a_name_without_addresses(names: NameServer, resolver: Resolver) -> None:
    names.set("a.test", "TXT", '"hello"')
    assert await fails(resolver, "a.test") == (Result.EMPTY, "a.test has no address")


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_a_name_server_that_cannot(names: NameServer, resolver: Resolver, rcode: str) -> None:
    names.fail("a.test", rcode)
    assert await fails(resolver, "a.test") == (
        Result.SERVFAIL,
        f"the name server 127.0.0.1 answered {rcode} for a.test",
    )


@pytest.mark.usefixtures("no_patience")
async def test_a_silent_name_server(names: NameServer, resolver: Resolver) -> None:
    names.silence()
    assert await fails(resolver, "a.test") == (
        Result.TIMEOUT,
        "no answer from the name servers for a.test",
    )


async def test_a_lookup_ends_after_its_time_whatever_is_left_to_ask(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_LOOKUP", 0.05)
    monkeypatch.setattr(resolvers, "_LIFETIME", 600.0)
    names.silence()
    assert (await fails(resolver, "a.test"))[0] is Result.TIMEOUT


async def test_no_name_server_at_all(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    resolver = Resolver(resolv_conf=path, hosts=HostsFile(tmp_path / "hosts"))
    assert await fails(resolver, "a.test") == (Result.ERROR, f"no name server in {path}")
    path.write_text("search test\n")
    assert await fails(resolver, "a.test") == (Result.ERROR, f"no name server in {path}")


@pytest.mark.parametrize("name", ["a..test", "a" * 64 + ".test", "a." * 128 + "test"])
async def test_what_cannot_be_a_name(resolver: Resolver, name: str) -> None:
    assert (await fails(resolver, name))[0] is Result.ERROR


@pytest.mark.parametrize("rcode", ["SERVFAIL", None])
async def test_a_family_that_cannot_be_asked_for_is_missing(
    names: NameServer, resolver: Resolver, rcode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_SECOND_FAMILY", 0.05)
    monkeypatch.setattr(resolvers, "_LIFETIME", 600.0)
    names.set("a.test", "A", "10.0.0.1")
    if rcode is None:
        names.silence("a.test", "AAAA")
    else:
        names.fail("a.test", rcode, "AAAA")
    assert await resolver.addresses("a.test") == HostAddresses(("10.0.0.1",), 30, frozenset({6}))


async def test_without_addresses_of_one_family_the_other_is_waited_for(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_SECOND_FAMILY", 0.001)
    monkeypatch.setattr(resolvers, "_TRY", 0.05)
    names.set("a.test", "AAAA", "fd00::1")
    names.silence("a.test", "AAAA")
    lookup = asyncio.create_task(resolver.addresses("a.test"))
    await eventually(lambda: names.asked("a.test", "AAAA") > 1)
    names.restore()
    assert (await lookup).addresses == ("fd00::1",)


async def test_a_name_server_that_denies_a_name_for_want_of_ipv6(
    names: NameServer, resolver: Resolver
) -> None:
    names.set("a.test", "A", "10.0.0.1")
    names.fail("a.test", "NXDOMAIN", "AAAA")
    assert await resolver.addresses("a.test") == HostAddresses(("10.0.0.1",), 30)


@pytest.mark.usefixtures("no_patience")
async def test_nothing_of_one_family_and_no_word_of_the_other_is_no_empty_answer(
    names: NameServer, resolver: Resolver
) -> None:
    names.set("a.test", "TXT", '"hello"')
    names.silence("a.test", "AAAA")
    assert (await fails(resolver, "a.test"))[0] is Result.TIMEOUT


async def test_a_name_server_that_is_gone_is_passed_over(
    names: NameServer,
    tmp_path: Path,
    resolver_with: MakeResolver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolvers, "_TRY", 0.05)
    names.set("a.test", "A", "10.0.0.1")
    resolver = resolver_with()
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.2\n" + path.read_text())
    assert (await resolver.addresses("a.test")).addresses == ("10.0.0.1",)


async def test_resolv_conf_is_read_again_when_it_changes(
    names: NameServer, tmp_path: Path, resolver: Resolver
) -> None:
    names.set("a.one.test", "A", "10.0.0.1")
    names.set("a.two.test", "A", "10.0.0.2")
    path = names.resolv_conf(tmp_path, "search one.test")
    os.utime(path, (1, 1))
    assert (await resolver.addresses("a")).addresses == ("10.0.0.1",)
    path = names.resolv_conf(tmp_path, "search two.test")
    os.utime(path, (2, 2))
    assert (await resolver.addresses("a")).addresses == ("10.0.0.2",)


# The search list


def asked(names: NameServer) -> list[str]:
    return [query.name for query in names.queries if query.rdtype == "A"]


async def test_names_are_sought_in_the_search_list(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with(*KUBERNETES)
    names.set("web.other.svc.cluster.test", "A", "10.0.0.1")
    assert (await resolver.addresses("web.other")).addresses == ("10.0.0.1",)
    assert asked(names) == ["web.other.ns.svc.cluster.test.", "web.other.svc.cluster.test."]


async def test_a_name_with_dots_enough_is_taken_as_it_is_first(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with("search example.test", "options ndots:2")
    names.set("a.b.test", "A", "10.0.0.1")
    names.set("a.b.test.example.test", "A", "10.0.0.9")
    names.set("a.b.example.test", "A", "10.0.0.2")
    assert (await resolver.addresses("a.b.test")).addresses == ("10.0.0.1",)
    assert (await resolver.addresses("a.b")).addresses == ("10.0.0.2",)


async def test_a_name_that_ends_with_a_dot_is_not_sought(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with(*KUBERNETES)
    names.set("a.test", "A", "10.0.0.1")
    assert (await resolver.addresses("a.test.")).addresses == ("10.0.0.1",)
    assert asked(names) == ["a.test."]


async def test_the_domain_that_had_a_name_is_asked_first_the_next_time(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with(*KUBERNETES)
    names.set("a.example.test", "A", "10.0.0.1")
    await resolver.addresses("a")
    names.queries.clear()
    names.set("a.example.test", "A", "10.0.0.2")
    assert (await resolver.addresses("a")).addresses == ("10.0.0.2",)
    assert asked(names) == ["a.example.test."]


async def test_a_domain_that_no_longer_has_a_name_is_not_asked_alone(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with(*KUBERNETES)
    names.set("a.example.test", "A", "10.0.0.1")
    await resolver.addresses("a")
    names.remove("a.example.test")
    names.set("a.ns.svc.cluster.test", "A", "10.0.0.2")
    assert (await resolver.addresses("a")).addresses == ("10.0.0.2",)


async def test_what_domain_had_a_name_is_not_remembered_for_ever(
    names: NameServer, resolver_with: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_REMEMBERED", 0.0)
    resolver = resolver_with(*KUBERNETES)
    names.set("a.example.test", "A", "10.0.0.1")
    await resolver.addresses("a")
    names.set("a.ns.svc.cluster.test", "A", "10.0.0.2")
    assert (await resolver.addresses("a")).addresses == ("10.0.0.2",)


async def test_a_domain_that_fails_does_not_end_the_search(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with("search broken.test example.test")
    names.fail("a.broken.test", "SERVFAIL")
    names.set("a.example.test", "A", "10.0.0.1")
    assert (await resolver.addresses("a")).addresses == ("10.0.0.1",)


async def test_where_the_name_was_a_failure_does_not_lead_to_a_namesake(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    """Many a company's domain answers whatever is asked for."""
    resolver = resolver_with(*KUBERNETES)
    names.set("a.ns.svc.cluster.test", "A", "10.0.0.1")
    names.set("a.example.test", "A", "192.0.2.1")
    await resolver.addresses("a")
    names.fail("a.ns.svc.cluster.test", "SERVFAIL")
    assert (await fails(resolver, "a"))[0] is Result.SERVFAIL


async def test_a_search_in_vain_says_what_came_nearest(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with("search one.test two.test")
    assert "a does not exist, nor in any domain" in (await fails(resolver, "a"))[1]
    names.set("a.two.test", "TXT", '"hello"')
    assert await fails(resolver, "a") == (Result.EMPTY, "a.two.test has no address")
    names.fail("a.one.test", "SERVFAIL")
    assert (await fails(resolver, "a"))[0] is Result.SERVFAIL


# Besides DNS


async def test_the_hosts_file_comes_first(
    names: NameServer, resolver: Resolver, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("10.0.0.9 a.test\n")
    names.set("a.test", "A", "10.0.0.1")
    assert await resolver.addresses("a.test") == HostAddresses(("10.0.0.9",))
    assert (await resolver.addresses("a.test.")).addresses == ("10.0.0.1",)


async def test_localhost_needs_no_name_server(names: NameServer, resolver: Resolver) -> None:
    names.set("localhost", "A", "192.0.2.1")
    assert await resolver.addresses("localhost") == HostAddresses(("127.0.0.1", "::1"))
    assert names.queries == []


class System(SystemLookups):
    """A system that knows one name."""

    def __init__(self, nsswitch: Path) -> None:
        super().__init__(nsswitch)
        self.names: list[str] = []

    async def addresses(self, name: str, timeout: float) -> tuple[str, ...]:
        self.names.append(name)
        return ("192.168.0.7",) if name == "printer.local" else ()


@pytest.fixture
def system(tmp_path: Path) -> System:
    (tmp_path / "nsswitch.conf").write_text("hosts: files mdns4_minimal dns\n")
    return System(tmp_path / "nsswitch.conf")


@pytest.fixture
def laptop(names: NameServer, system: System, tmp_path: Path) -> Resolver:
    hosts = HostsFile(tmp_path / "hosts")
    conf = names.resolv_conf(tmp_path)
    return Resolver(resolv_conf=conf, port=names.port, hosts=hosts, system=system)


async def test_the_system_is_asked_for_what_dns_does_not_know(
    laptop: Resolver, system: System
) -> None:
    assert await laptop.addresses("printer.local") == HostAddresses(("192.168.0.7",))
    assert await fails(laptop, "b.local") == (Result.NXDOMAIN, "b.local does not exist")
    assert system.names == ["printer.local", "b.local"]


async def test_the_system_is_not_asked_when_dns_fails(
    names: NameServer, laptop: Resolver, system: System
) -> None:
    names.fail("printer.local", "SERVFAIL")
    assert (await fails(laptop, "printer.local"))[0] is Result.SERVFAIL
    assert system.names == []


async def test_the_system_is_not_asked_where_it_knows_no_more(
    laptop: Resolver, system: System, tmp_path: Path
) -> None:
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    assert (await fails(laptop, "printer.local"))[0] is Result.NXDOMAIN
    assert system.names == []


# SRV

SERVICE = "_webtransport._udp.a.test"


async def test_services_by_priority_then_weight(names: NameServer, resolver: Resolver) -> None:
    names.set(
        SERVICE, "SRV",
        "20 0 4433 backup.test.", "10 1 4433 light.test.", "10 9 4434 heavy.test.", ttl=20,
    )  # fmt: skip
    for host, address in {"backup": "10.0.0.1", "light": "10.0.0.2", "heavy": "10.0.0.3"}.items():
        names.set(f"{host}.test", "A", address)
    found = await resolver.services(SERVICE)
    assert found.endpoints == (
        Endpoint("heavy.test", 4434, ("10.0.0.3",)),
        Endpoint("light.test", 4433, ("10.0.0.2",)),
        Endpoint("backup.test", 4433, ("10.0.0.1",)),
    )
    assert (found.ttl, found.problem) == (20, None)
    assert {query.rdtype for query in names.queries} == {"SRV"}  # the rest was added


async def test_hosts_that_are_not_added_are_looked_up(
    names: NameServer, resolver: Resolver
) -> None:
    names.adds_addresses = False
    names.set(SERVICE, "SRV", "0 0 1 b.test.", "0 0 2 b.test.")
    names.set("b.test", "A", "10.0.0.1", ttl=5)
    names.set("b.test", "AAAA", "fd00::1")
    found = await resolver.services(SERVICE)
    assert [e.port for e in found.endpoints] == [1, 2]
    assert {e.addresses for e in found.endpoints} == {("fd00::1", "10.0.0.1")}
    assert found.ttl == 5
    assert names.asked("b.test", "A") == 1


async def test_a_record_that_comes_twice_is_one_endpoint(
    names: NameServer, resolver: Resolver
) -> None:
    names.set(SERVICE, "SRV", "0 0 1 b.test.", "5 0 1 B.test.")
    names.set("b.test", "A", "10.0.0.1")
    assert len((await resolver.services(SERVICE)).endpoints) == 1


async def test_a_host_that_cannot_be_looked_up_is_missing_and_reported(
    names: NameServer, resolver: Resolver
) -> None:
    names.set(SERVICE, "SRV", "0 0 1 b.test.", "1 0 1 c.test.")
    names.set("b.test", "A", "10.0.0.1")
    found = await resolver.services(SERVICE)
    assert found.endpoints == (
        Endpoint("b.test", 1, ("10.0.0.1",)),
        Endpoint("c.test", 1, (), missing=BOTH),
    )
    assert found.problem is not None
    assert found.problem.result is Result.NXDOMAIN
    assert str(found.problem) == "c.test does not exist"


async def test_a_service_that_is_not_offered(names: NameServer, resolver: Resolver) -> None:
    names.set(SERVICE, "SRV", "0 0 0 .")
    with pytest.raises(DiscoveryError, match=f"{SERVICE} has no SRV record") as failed:
        await resolver.services(SERVICE)
    assert failed.value.result is Result.EMPTY


async def test_services_are_sought_in_the_search_list(
    names: NameServer, resolver_with: MakeResolver
) -> None:
    resolver = resolver_with(*KUBERNETES)
    names.set("_webtransport._udp.a.ns.svc.cluster.test", "SRV", "0 0 1 b.test.")
    names.set("b.test", "A", "10.0.0.1")
    assert len((await resolver.services("_webtransport._udp.a")).endpoints) == 1


async def test_a_service_with_many_hosts(names: NameServer, resolver: Resolver) -> None:
    names.adds_addresses = False
    names.set(SERVICE, "SRV", *(f"0 0 1 h{number}.test." for number in range(60)))
    for number in range(60):
        names.set(f"h{number}.test", "A", f"10.0.0.{number}")
    found = await resolver.services(SERVICE)
    assert sorted(e.addresses for e in found.endpoints) == sorted(
        (f"10.0.0.{number}",) for number in range(60)
    )


# Leaving


async def test_a_lookup_that_is_cancelled_leaves_nothing_behind(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_LIFETIME", 600.0)
    names.silence()
    lookup = asyncio.create_task(resolver.addresses("a.test"))
    await eventually(lambda: names.asked("a.test") > 0)
    lookup.cancel()
    await asyncio.wait([lookup])
    assert lookup.cancelled()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
