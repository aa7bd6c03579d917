from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.client.discovery.addresses import (
    Families,
    has_route,
    interleave_families,
    is_address,
    normalize,
)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"])
def test_an_address(host: str) -> None:
    assert is_address(host)


@pytest.mark.parametrize("host", ["", "localhost", "10.0.0", "10.0.0.1.", "[fd00::1]", "1"])
def test_no_address(host: str) -> None:
    assert not is_address(host)


def test_each_address_once_in_its_usual_form_and_order() -> None:
    told = ["10.0.0.2", "FD00:0::1", "10.0.0.1", "fd00::1", "::ffff:10.0.0.2", "fe80::1%eth0"]
    assert normalize(told) == ("10.0.0.2", "fd00::1", "10.0.0.1", "fe80::1%eth0")


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255", "?"]
)
def test_addresses_that_no_host_can_have_are_left_out(address: str) -> None:
    assert normalize([address, "10.0.0.1"]) == ("10.0.0.1",)


def test_families_take_turns() -> None:
    assert interleave_families(["fd00::1", "fd00::2", "fd00::3", "10.0.0.1"]) == (
        "fd00::1", "10.0.0.1", "fd00::2", "fd00::3",
    )  # fmt: skip
    assert interleave_families(["10.0.0.1", "fd00::1"]) == ("10.0.0.1", "fd00::1")
    assert interleave_families([]) == ()


@given(st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]), unique=True))
def test_turns_lose_nothing_and_keep_the_order_of_each_family(addresses: list[str]) -> None:
    taken = interleave_families(addresses)
    assert sorted(taken) == sorted(addresses)
    for separator in ".", ":":
        family = [address for address in addresses if separator in address]
        assert [address for address in taken if separator in address] == family


def test_this_host_has_a_route_to_itself() -> None:
    assert has_route("127.0.0.1")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENETUNREACH, False),
        (errno.EHOSTUNREACH, False),
        (errno.EADDRNOTAVAIL, False),
        (errno.EAFNOSUPPORT, False),
        (errno.EMFILE, True),  # which says nothing of routes
    ],
)
def test_only_what_says_so_means_that_there_is_no_route(
    number: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(number, "as told")

    monkeypatch.setattr(socket, "socket", fail)
    assert has_route("fd00::1") is expected


class Routes:
    """Routes to these versions, besides to the host itself."""

    def __init__(self, *versions: int) -> None:
        self.versions = set(versions)
        self.asked: list[str] = []

    def __call__(self, address: str) -> bool:
        self.asked.append(address)
        return address in ("127.0.0.1", "::1") or (6 if ":" in address else 4) in self.versions


def test_a_version_that_this_host_does_not_speak_is_left_out() -> None:
    families = Families(Routes(4))
    assert families.usable(["fd00::1", "10.0.0.1"]) == ("10.0.0.1",)


def test_all_addresses_stay_where_none_has_a_route() -> None:
    routes = Routes()
    families = Families(routes)
    assert families.usable(["fd00::1", "10.0.0.1"]) == ("fd00::1", "10.0.0.1")
    routes.versions.add(4)
    assert families.usable(["fd00::1", "10.0.0.1"]) == ("10.0.0.1",)


def test_a_version_that_was_spoken_once_stays_when_its_route_goes() -> None:
    routes = Routes(4, 6)
    families = Families(routes)
    families.usable(["fd00::1", "10.0.0.1"])
    routes.versions.clear()
    assert families.usable(["fd00::1", "10.0.0.1"]) == ("fd00::1", "10.0.0.1")


def test_the_loopback_address_does_not_show_that_a_version_is_spoken() -> None:
    families = Families(Routes(4))
    assert families.usable(["::1", "127.0.0.1"]) == ("::1", "127.0.0.1")
    assert families.usable(["fd00::1", "10.0.0.1"]) == ("10.0.0.1",)


def test_a_large_answer_is_not_tried_address_by_address() -> None:
    routes = Routes(4)
    families = Families(routes)
    many = [f"fd00::{number:x}" for number in range(1, 1000)]
    assert families.usable([*many, "10.0.0.1", "10.0.0.2"]) == ("10.0.0.1", "10.0.0.2")
    assert len(routes.asked) < 20
