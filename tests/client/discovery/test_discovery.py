"""What discovery finds, and how it keeps it up to date."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from pingpong.client.discovery import Destination, Discovery, Result
from pingpong.client.discovery import discovery as discoveries
from pingpong.client.discovery import resolver as resolvers
from tests.client.discovery.finding import Found, Surroundings, eventually, hurry
from tests.support.kubernetes_api import ApiServer, endpoint, endpoint_slice
from tests.support.nameserver import NameServer
from tests.support.processes import environment

URL = "https://a.test:4433/ping"
NAME = "a.test:4433"
SERVICE = "endpointslice://ns/svc"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy is no name server that is gone."""
    monkeypatch.setattr(discoveries, "REFRESH_TIMEOUT_KNOWN", 60.0)


# By name


async def test_a_name_is_a_destination_with_its_addresses(
    names: NameServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1", "10.0.0.2")
    names.set("a.test", "AAAA", "fd00::1")
    async with around.find(URL) as found:
        await found.until(NAME)
        assert found.told == [{NAME: Destination(NAME, URL, ("fd00::1", "10.0.0.1", "10.0.0.2"))}]
        assert found.results == [Result.OK]


async def test_an_address_needs_no_lookup(names: NameServer, around: Surroundings) -> None:
    async with around.find("https://127.0.0.1:1/", "https://[fe80::1%eth0]:2/") as found:
        await found.until("127.0.0.1:1", "[fe80::1%eth0]:2")
        assert found.addresses("[fe80::1%eth0]:2") == ("fe80::1%eth0",)
        assert len(found.told) == 1
        assert await found.discovery.refresh("127.0.0.1:1") == found.told[0]["127.0.0.1:1"]
        assert (names.queries, found.results) == ([], [])


async def test_a_name_that_cannot_be_found_is_a_destination_without_addresses(
    around: Surroundings,
) -> None:
    async with around.find(URL) as found:
        await found.until(NAME)
        assert found.told == [{NAME: Destination(NAME, URL, ())}]
        assert found.results == [Result.NXDOMAIN]


async def test_other_addresses_are_reported_when_the_ttl_has_passed(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    names.set("a.test", "A", "10.0.0.1", ttl=0)
    async with around.find(URL) as found:
        await found.until_at(NAME, "10.0.0.1")
        names.set("a.test", "A", "10.0.0.2", ttl=0)
        await found.until_at(NAME, "10.0.0.2")


async def test_the_ttl_is_waited_for(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    names.set("a.test", "A", "10.0.0.1", ttl=1)
    times: list[float] = []
    async with around.find(URL, counted=lambda result: times.append(time.monotonic())):
        await eventually(lambda: len(times) == 2)
    assert times[1] - times[0] > 0.99


async def test_nothing_is_reported_while_nothing_changes(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    names.set("a.test", "A", "10.0.0.1", "10.0.0.2", ttl=0)
    async with around.find(URL) as found:
        await found.lookups(2)
        names.set("a.test", "A", "10.0.0.2", "10.0.0.1", ttl=0)  # a name server's turns
        await found.lookups(3)
        assert len(found.told) == 1
        assert found.addresses(NAME) == ("10.0.0.1", "10.0.0.2")


# Per address


async def test_addresses_come_and_go(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    names.set("a.test", "A", "10.0.0.1", "10.0.0.2", ttl=0)
    async with around.find(URL, per_address=True) as found:
        await found.until(f"{NAME}[10.0.0.1]", f"{NAME}[10.0.0.2]")
        assert found.addresses(f"{NAME}[10.0.0.2]") == ("10.0.0.2",)
        names.set("a.test", "A", "10.0.0.3", "10.0.0.2", ttl=0)
        await found.until(f"{NAME}[10.0.0.2]", f"{NAME}[10.0.0.3]")


async def test_per_address_a_name_that_cannot_be_found_is_no_destination(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    async with around.find(URL, per_address=True) as found:
        await found.lookups(2)
        assert found.told == []
        names.set("a.test", "A", "10.0.0.1")
        await found.until(f"{NAME}[10.0.0.1]")


async def test_too_many_are_left_out_and_take_a_place_when_one_is_free(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    names.set("a.test", "A", "10.0.0.2", "10.0.0.3", "10.0.0.4", ttl=0)
    async with around.find(URL, per_address=True, max_targets=2) as found:
        await found.until(f"{NAME}[10.0.0.2]", f"{NAME}[10.0.0.3]")
        assert found.discovery.left_out == 1
        names.set("a.test", "A", "10.0.0.1", "10.0.0.3", "10.0.0.4", ttl=0)
        await found.until(f"{NAME}[10.0.0.1]", f"{NAME}[10.0.0.3]")
        with pytest.raises(KeyError):
            await found.discovery.refresh(f"{NAME}[10.0.0.4]")


async def test_names_hold_their_places_until_they_are_looked_up(
    names: NameServer, around: Surroundings
) -> None:
    names.silence("a.test")
    names.set("b.test", "A", "10.0.0.2")
    async with around.find(URL, "https://b.test/", "https://10.0.0.3:1/", max_targets=2) as found:
        await found.until("b.test:443")
        assert found.discovery.left_out == 1


# Sources of all kinds


async def test_all_kinds_of_sources_beside_each_other(
    names: NameServer, api: ApiServer, around: Surroundings
) -> None:
    names.set("a.test", "A", "10.0.0.1")
    names.set("_s._udp.b.test", "SRV", "0 0 4434 c.test.")
    names.set("c.test", "A", "10.0.0.2")
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.3", pod="pod-1")))
    servers = (URL, "srv://_s._udp.b.test", SERVICE, "https://10.0.0.4:1/")
    async with around.find(*servers) as found:
        await found.until(NAME, "c.test:4434", "ns/svc", "10.0.0.4:1")
        assert found.addresses("c.test:4434") == ("10.0.0.2",)
        assert found.discovery.destinations["ns/svc"] == Destination(
            "ns/svc", "https://svc.ns.svc:4433/ping", ("10.0.0.3",)
        )
        kinds = {state.source: state.kind for state in found.discovery.state()}
        assert kinds == {
            NAME: "host",
            "_s._udp.b.test": "srv",
            "ns/svc": "endpointslice",
            "10.0.0.4:1": "address",
        }
        assert all(state.result is Result.OK for state in found.discovery.state())


async def test_pods_come_drain_and_go(api: ApiServer, around: Surroundings) -> None:
    one, two = endpoint("10.0.0.1", pod="pod-1"), endpoint("10.0.0.2", pod="pod-2")
    api.put(endpoint_slice("svc-1", one))
    async with around.find(SERVICE, per_address=True) as found:
        await found.until("pod-1")
        api.put(endpoint_slice("svc-1", one, two))
        await found.until("pod-1", "pod-2")
        drains = endpoint("10.0.0.1", pod="pod-1", ready=False, serving=True, terminating=True)
        api.put(endpoint_slice("svc-1", drains, two))
        await found.until("pod-2")
        # A stateful set's pod comes back under its name, at another address.
        api.put(endpoint_slice("svc-1", two, endpoint("10.0.0.9", pod="pod-1")))
        await found.until("pod-1", "pod-2")
        assert found.addresses("pod-1") == ("10.0.0.9",)
        assert await found.discovery.refresh("pod-1") == found.discovery.destinations["pod-1"]


async def test_pods_of_two_services_with_one_name(api: ApiServer, around: Surroundings) -> None:
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="web-0")))
    api.put(endpoint_slice("new-1", endpoint("10.0.0.2", pod="web-0"), service="new"))
    servers = (SERVICE, "endpointslice://ns/new")
    async with around.find(*servers, per_address=True) as found:
        await found.until("ns/svc[web-0]", "ns/new[web-0]")


async def test_a_service_scaled_to_nothing_keeps_its_last_pods(
    api: ApiServer, around: Surroundings
) -> None:
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")))
    async with around.find(SERVICE, per_address=True) as found:
        await found.until("pod-1")
        api.put(endpoint_slice("svc-1"))
        await eventually(lambda: Result.EMPTY in found.results)
        assert found.names == ["pod-1"]
        (state,) = found.discovery.state()
        assert (state.error, state.addresses) == ("no ready endpoint with this port", 1)


# Fresh


async def test_a_fresh_lookup_finds_what_is_new_and_tells_it(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    names.set("a.test", "A", "10.0.0.1")
    async with around.find(URL) as found:
        await found.until_at(NAME, "10.0.0.1")
        names.set("a.test", "A", "10.0.0.2")
        assert await found.discovery.refresh(NAME) == Destination(NAME, URL, ("10.0.0.2",))
        assert found.addresses(NAME) == ("10.0.0.2",)


async def test_a_fresh_lookup_has_the_order_of_the_name_server(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    names.set("a.test", "A", "10.0.0.1", "10.0.0.2")
    async with around.find(URL) as found:
        await found.until(NAME)
        names.set("a.test", "A", "10.0.0.2", "10.0.0.1")
        assert (await found.discovery.refresh(NAME)).addresses == ("10.0.0.2", "10.0.0.1")
        assert len(found.told) == 1


async def test_many_who_want_it_fresh_share_a_lookup_and_soon_after_there_is_none(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    names.set("a.test", "A", *(f"10.0.0.{number}" for number in range(1, 21)))
    async with around.find(URL, per_address=True) as found:
        await found.lookups(1)
        names.queries.clear()
        await asyncio.gather(*map(found.discovery.refresh, found.names))
        assert names.asked("a.test", "A") == 1
        hurry(monkeypatch, 30.0)
        await found.discovery.refresh(found.names[0])
        assert names.asked("a.test", "A") == 1


async def test_a_fresh_lookup_waits_so_long_and_then_has_the_last_good_answer(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    monkeypatch.setattr(discoveries, "REFRESH_TIMEOUT_KNOWN", 0.05)
    names.set("a.test", "A", "10.0.0.1")
    async with around.find(URL) as found:
        await found.until_at(NAME, "10.0.0.1")
        names.silence()
        assert (await found.discovery.refresh(NAME)).addresses == ("10.0.0.1",)
        assert found.results == [Result.OK]  # that one is still on its way


async def test_in_trouble_a_fresh_lookup_is_not_waited_for_long(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    monkeypatch.setattr(discoveries, "REFRESH_TIMEOUT", 600.0)
    monkeypatch.setattr(discoveries, "REFRESH_TIMEOUT_KNOWN", 0.25)
    monkeypatch.setattr(resolvers, "_LIFETIME", 600.0)
    monkeypatch.setattr(resolvers, "_LOOKUP", 600.0)
    names.set("a.test", "A", "10.0.0.1")
    async with around.find(URL) as found:
        await found.until_at(NAME, "10.0.0.1")
        names.fail("a.test", "SERVFAIL")
        await found.discovery.refresh(NAME)
        names.silence()
        assert (await found.discovery.refresh(NAME)).addresses == ("10.0.0.1",)


async def test_a_destination_that_a_fresh_lookup_ends_is_returned_as_it_was(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    names.set("a.test", "A", "10.0.0.1")
    async with around.find(URL, per_address=True) as found:
        await found.until(f"{NAME}[10.0.0.1]")
        names.set("a.test", "A", "10.0.0.2")
        assert (await found.discovery.refresh(f"{NAME}[10.0.0.1]")).addresses == ("10.0.0.1",)
        assert found.names == [f"{NAME}[10.0.0.2]"]


async def test_who_gives_up_a_fresh_lookup_does_not_end_it_for_others(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    names.set("a.test", "A", "10.0.0.1")
    async with around.find(URL) as found:
        await found.until_at(NAME, "10.0.0.1")
        names.set("a.test", "A", "10.0.0.2")
        impatient = asyncio.create_task(found.discovery.refresh(NAME))
        await asyncio.sleep(0)
        impatient.cancel()
        await found.until_at(NAME, "10.0.0.2")
        assert impatient.cancelled()


async def test_there_is_nothing_fresh_of_what_is_unknown(around: Surroundings) -> None:
    async with around.find(URL) as found:
        with pytest.raises(KeyError):
            await found.discovery.refresh("b.test:4433")


# Begin and end


def test_what_is_no_source() -> None:
    with pytest.raises(ValueError, match=r"^must "):
        Found("http://a.test")


async def test_at_the_end_nothing_is_left_behind(
    names: NameServer,
    api: ApiServer,
    around: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolvers, "_LIFETIME", 600.0)
    monkeypatch.setattr(resolvers, "_LOOKUP", 600.0)
    names.silence()
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")))
    async with around.find(URL, SERVICE) as found:
        await found.until("ns/svc")
        await eventually(lambda: names.asked("a.test") > 0 and api.watches == 1)
    told = len(found.told)
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await eventually(lambda: not [t for t in threading.enumerate() if "ns/svc" in t.name])
    assert len(found.told) == told


async def test_a_fresh_lookup_on_its_way_ends_with_discovery(
    names: NameServer, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.0)
    monkeypatch.setattr(resolvers, "_LIFETIME", 600.0)
    monkeypatch.setattr(resolvers, "_LOOKUP", 600.0)
    monkeypatch.setattr(discoveries, "REFRESH_TIMEOUT_KNOWN", 600.0)
    names.set("a.test", "A", "10.0.0.1")
    async with around.find(URL) as found:
        await found.until_at(NAME, "10.0.0.1")
        asked = names.asked("a.test")
        names.silence()
        fresh = asyncio.create_task(found.discovery.refresh(NAME))
        await eventually(lambda: names.asked("a.test") > asked)
    assert (await fresh).addresses == ("10.0.0.1",)
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@pytest.mark.process
def test_libraries_are_imported_when_a_source_needs_them() -> None:
    program = (
        "import asyncio, sys\n"
        "from pingpong.client.discovery import Discovery\n"
        "async def main():\n"
        "    done = asyncio.Event()\n"
        "    discovery = Discovery(['https://127.0.0.1:1/'], per_address=True, max_targets=1,\n"
        "                          interval=30, changed=lambda destinations: done.set())\n"
        "    task = asyncio.create_task(discovery.run())\n"
        "    await done.wait()\n"
        "asyncio.run(main())\n"
        "print({'dns', 'kubernetes', 'urllib3'} & set(sys.modules))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout == "set()\n"


async def test_before_it_runs_there_is_nothing() -> None:
    discovery: Discovery = Found(URL).discovery
    assert (dict(discovery.destinations), discovery.state(), discovery.last_success) == ({}, (), 0)
