"""What discovery keeps when lookups fail, and what it says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pingpong.client.discovery import Destination, Result
from pingpong.client.discovery import resolver as resolvers
from pingpong.client.discovery.addresses import Families
from pingpong.client.discovery.resolver import HostAddresses, Resolver
from tests.client.discovery.finding import Surroundings, eventually, hurry
from tests.support.kubernetes_api import TOKEN, ApiServer, as_usual, endpoint, endpoint_slice
from tests.support.nameserver import NameServer

URL = "https://a.test:4433/ping"
NAME = "a.test:4433"
SERVICE = "endpointslice://ns/svc"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


FAULTS: dict[Result, Callable[[NameServer], None]] = {
    Result.NXDOMAIN: lambda names: names.remove("a.test"),
    Result.EMPTY: lambda names: names.set("a.test", "A"),
    Result.SERVFAIL: lambda names: names.fail("a.test", "SERVFAIL"),
    Result.TIMEOUT: lambda names: names.silence(),
}


@pytest.mark.parametrize("per_address", [False, True])
@pytest.mark.parametrize("result", FAULTS)
async def test_the_last_good_answer_is_kept_and_the_next_one_used(
    names: NameServer,
    around: Surroundings,
    result: Result,
    per_address: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    async with around.find(URL, per_address=per_address) as found:
        await eventually(lambda: bool(found.names))
        if result is Result.TIMEOUT:
            monkeypatch.setattr(resolvers, "_LIFETIME", 0.1)
        FAULTS[result](names)
        await eventually(lambda: result in found.results)
        await found.lookups(2)
        (name,) = found.names
        assert found.addresses(name) == ("10.0.0.1",)
        assert (await found.discovery.refresh(name)).addresses == ("10.0.0.1",)
        assert len(found.told) == 1
        names.restore()
        names.set("a.test", "A", "10.0.0.2", ttl=0)
        await eventually(lambda: len(found.told) == 2)
        (made,) = found.told[1].values()
        assert made.addresses == ("10.0.0.2",)
        assert set(found.results) == {Result.OK, result}


async def test_addresses_of_a_family_that_fails_are_kept_beside_new_ones_of_the_other(
    names: NameServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    names.set("a.test", "AAAA", "fd00::1", ttl=0)
    async with around.find(URL) as found:
        await found.until_at(NAME, "fd00::1", "10.0.0.1")
        names.fail("a.test", "SERVFAIL", "AAAA")
        names.set("a.test", "A", "10.0.0.2", ttl=0)
        await found.until_at(NAME, "10.0.0.2", "fd00::1")


async def test_the_last_good_services_are_kept(names: NameServer, around: Surroundings) -> None:
    names.set("_s._udp.a.test", "SRV", "0 0 1 b.test.", "0 0 2 c.test.", ttl=0)
    names.set("b.test", "A", "10.0.0.1", ttl=0)
    names.set("c.test", "A", "10.0.0.2", ttl=0)
    async with around.find("srv://_s._udp.a.test") as found:
        await found.until("b.test:1", "c.test:2")
        names.remove("b.test")
        names.set("c.test", "A", "10.0.0.3", ttl=0)
        await found.until_at("c.test:2", "10.0.0.3")
        assert found.addresses("b.test:1") == ("10.0.0.1",)
        names.remove("_s._udp.a.test")
        await found.lookups(2)
        assert found.names == ["b.test:1", "c.test:2"]
        names.set("_s._udp.a.test", "SRV", "0 0 2 c.test.", ttl=0)
        await found.until("c.test:2")


async def test_a_service_whose_host_was_never_found_is_a_destination_without_addresses(
    names: NameServer, around: Surroundings
) -> None:
    names.set("_s._udp.a.test", "SRV", "0 0 1 b.test.", ttl=0)
    async with around.find("srv://_s._udp.a.test") as found:
        await found.until("b.test:1")
        assert found.told == [{"b.test:1": Destination("b.test:1", "https://b.test:1/ping", ())}]
        assert found.results[0] is Result.NXDOMAIN


async def test_the_last_good_pods_are_kept_while_the_api_server_refuses(
    api: ApiServer, around: Surroundings
) -> None:
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")))
    async with around.find(SERVICE, per_address=True) as found:
        await found.until("pod-1")
        await eventually(lambda: api.watches == 1)
        api.instead = lambda request: 403
        with capture_logs() as events:
            api.end_watches(abruptly=True)
            await eventually(lambda: Result.FORBIDDEN in found.results)
        assert found.names == ["pod-1"]
        (event,) = [event for event in events if event["event"] == "discovery_failed"]
        assert "grant get, list and watch on endpointslices.discovery.k8s.io" in event["error"]
        assert (event["source"], event["addresses_kept"]) == ("ns/svc", 1)
        assert TOKEN not in str(events)
        api.put(endpoint_slice("svc-1", endpoint("10.0.0.2", pod="pod-2")))
        api.instead = as_usual
        await found.until("pod-2")


async def test_a_name_server_that_is_silent_for_one_name_holds_up_no_other(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_LIFETIME", 60.0)
    silent = [f"https://s{number}.test/" for number in range(50)]
    for number in range(50):
        names.silence(f"s{number}.test")
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    async with around.find(*silent, URL) as found:
        await found.until(NAME)
        names.set("a.test", "A", "10.0.0.2", ttl=0)
        await found.until_at(NAME, "10.0.0.2")


class Faulty(Resolver):
    """Has a fault of its own, the first time."""

    def __init__(self) -> None:
        super().__init__(resolv_conf=Path("/none"))
        self.asked = 0

    async def addresses(self, name: str) -> HostAddresses:
        self.asked += 1
        if self.asked == 1:
            raise IndexError("of a parser")
        return HostAddresses(("10.0.0.1",))


async def test_a_fault_of_the_resolver_does_not_end_discovery(around: Surroundings) -> None:
    with capture_logs() as events:
        async with around.find(URL, resolver=Faulty()) as found:
            await found.until_at(NAME, "10.0.0.1")
    assert found.results == [Result.ERROR, Result.OK]
    faults = [event for event in events if event["event"] == "discovery_crashed"]
    assert [fault["exc_info"] for fault in faults] == [True]


async def test_addresses_that_this_host_cannot_reach_are_left_out(
    names: NameServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1")
    names.set("a.test", "AAAA", "fd00::1")
    families = Families(lambda address: ":" not in address)
    async with around.find(URL, per_address=True, families=families) as found:
        await found.until(f"{NAME}[10.0.0.1]")


# What it says


async def test_how_each_source_does(names: NameServer, around: Surroundings) -> None:
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    began = time.time()
    async with around.find(URL, "https://b.test/", "https://10.0.0.9:1/") as found:
        await eventually(lambda: len(found.names) == 3)
        names.remove("a.test")
        await eventually(lambda: found.discovery.state()[0].result is Result.NXDOMAIN)
        first, second, third = found.discovery.state()
        assert first.source == NAME
        assert first.error == "a.test does not exist"
        assert first.addresses == 1
        assert first.last_success is not None
        assert began - 1 < first.last_success < time.time()
        assert (second.last_success, second.addresses) == (None, 0)
        assert second.result is not Result.OK
        assert (third.addresses, third.result) == (1, Result.OK)
        assert asdict(third)["result"] == "ok"  # as JSON has it


async def test_a_summary_names_the_sources_in_trouble(
    names: NameServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    others = [f"https://{letter}.test/" for letter in "bcde"]
    async with around.find(URL, *others) as found:
        await eventually(lambda: len(found.names) == 5)
        assert found.discovery.summary() == (
            "b.test:443: b.test does not exist (0 kept);"
            " c.test:443: c.test does not exist (0 kept);"
            " d.test:443: d.test does not exist (0 kept); and 1 more"
        )
    async with around.find(URL, "https://10.0.0.9:1/", max_targets=1) as found:
        await found.until(NAME)
        assert found.discovery.summary() == "1 targets above the limit of 1"
    async with around.find(URL, "https://10.0.0.9:1/") as found:
        await eventually(lambda: len(found.names) == 2)
        assert found.discovery.summary() == "2 looked up"


async def test_the_last_success_is_that_of_the_source_that_has_waited_longest(
    names: NameServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    async with around.find(URL, "https://b.test/", "https://10.0.0.9:1/") as found:
        await eventually(lambda: len(found.names) == 3)
        assert found.discovery.last_success == 0.0
        names.set("b.test", "A", "10.0.0.2", ttl=0)
        await found.until_at("b.test:443", "10.0.0.2")
        assert found.discovery.last_success == pytest.approx(time.time(), abs=5)
        names.remove("b.test")
        await eventually(lambda: found.discovery.state()[1].result is Result.NXDOMAIN)
        stands_at = found.discovery.last_success
        await found.lookups(3)
        assert found.discovery.last_success == pytest.approx(stands_at, abs=0.01)


async def test_a_watch_that_stands_is_a_success_all_the_time(
    api: ApiServer, around: Surroundings
) -> None:
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")))
    async with around.find(SERVICE) as found:
        await found.until("ns/svc")
        before = found.discovery.last_success
        await eventually(lambda: found.discovery.last_success > before + 0.01)
        assert set(found.results) == {Result.OK}


async def test_failures_are_logged_once_and_so_is_their_end(
    names: NameServer, around: Surroundings
) -> None:
    with capture_logs() as events:
        async with around.find(URL) as found:
            await found.lookups(3)
            names.set("a.test", "A", "10.0.0.1")
            await found.until_at(NAME, "10.0.0.1")
            # It is there a moment before that is logged.
            await eventually(lambda: "discovery_recovered" in [event["event"] for event in events])
    failed, recovered = [event for event in events if event["event"].startswith("discovery_")]
    assert failed == {
        "event": "discovery_failed",
        "log_level": "warning",
        "source": NAME,
        "result": "nxdomain",
        "error": "a.test does not exist",
        "addresses_kept": 0,
        "count": 1,
    }
    assert recovered["event"] == "discovery_recovered"
    assert recovered["failures"] == found.results.count(Result.NXDOMAIN)


async def test_targets_that_are_left_out_are_logged_once(
    names: NameServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1", "10.0.0.2", "10.0.0.3", ttl=0)
    with capture_logs() as events:
        async with around.find(URL, per_address=True, max_targets=1) as found:
            await found.until(f"{NAME}[10.0.0.1]")
            names.set("a.test", "A", "10.0.0.1", "10.0.0.2", ttl=0)
            await eventually(lambda: found.discovery.left_out == 1)
    (event,) = [event for event in events if event["event"] == "targets_left_out"]
    assert (event["left_out"], event["max_targets"]) == (2, 1)
