from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.client.discovery.lookups import (
    BOTH,
    MAX_RETRY,
    MIN_INTERVAL,
    Answer,
    DiscoveryError,
    Endpoint,
    LookupState,
    Result,
    retry_delay,
)

NXDOMAIN = DiscoveryError(Result.NXDOMAIN, "there is no such name")


def answer(
    *addresses: str, ttl: float | None = None, missing: frozenset[int] = frozenset()
) -> Answer:
    return Answer((Endpoint("a.test", 4433, addresses, missing=missing),), ttl)


def lookups(interval: float = 30.0, now: float = 0.0, random: float = 0.0) -> LookupState:
    return LookupState(interval, now, lambda: random)


def addresses(of: LookupState) -> tuple[str, ...]:
    return tuple(address for endpoint in of.endpoints for address in endpoint.addresses)


# When


def test_the_first_lookup_is_due_at_once() -> None:
    assert lookups(now=5.0).due == 5.0


@pytest.mark.parametrize(
    ("ttl", "due"), [(5.0, 105.0), (0.0, 101.0), (0.5, 101.0), (300.0, 130.0), (None, 130.0)]
)
def test_an_answer_is_asked_for_again_after_its_ttl_within_bounds(
    ttl: float | None, due: float
) -> None:
    known = lookups()
    known.succeeded(answer("10.0.0.1", ttl=ttl), 100.0)
    assert known.due == due


def test_jitter_waits_longer_than_a_ttl_and_shorter_than_the_interval() -> None:
    known = lookups(random=1.0)
    known.succeeded(answer("10.0.0.1", ttl=10.0), 100.0)
    assert known.due == pytest.approx(111.0)
    known.succeeded(answer("10.0.0.1"), 100.0)
    assert known.due == pytest.approx(127.0)


def test_failures_are_followed_by_lookups_at_growing_distances() -> None:
    known = lookups(random=1.0)
    distances = []
    for _ in range(6):
        known.failed(NXDOMAIN, 100.0)
        distances.append(known.due - 100.0)
    assert distances == [2.0, 4.0, 8.0, MAX_RETRY, MAX_RETRY, MAX_RETRY]


def test_a_success_ends_the_growth() -> None:
    known = lookups(random=1.0)
    for _ in range(5):
        known.failed(NXDOMAIN, 100.0)
    known.succeeded(answer("10.0.0.1"), 100.0)
    known.failed(NXDOMAIN, 100.0)
    assert known.due == 102.0


def test_retries_are_no_further_apart_than_the_interval() -> None:
    assert retry_delay(20, 3.0, 1.0) == 3.0
    assert retry_delay(20, 0.2, 1.0) == MIN_INTERVAL


def test_a_lookup_is_recent_for_a_second_whatever_came_of_it() -> None:
    known = lookups()
    assert not known.is_recent(0.0)
    known.failed(NXDOMAIN, 100.0)
    assert known.is_recent(100.9)
    assert not known.is_recent(101.0)
    known.succeeded(answer("10.0.0.1"), 200.0)
    assert known.is_recent(200.9)


# What is kept


def test_what_is_known_stays_when_a_lookup_fails() -> None:
    known = lookups()
    known.succeeded(answer("10.0.0.1"), 100.0)
    known.failed(NXDOMAIN, 105.0)
    assert addresses(known) == ("10.0.0.1",)
    assert (known.result, known.error) == (Result.NXDOMAIN, "there is no such name")
    assert known.succeeded_at == 100.0


@pytest.mark.parametrize("nothing", [Answer(()), answer()])
def test_what_is_known_stays_when_an_answer_is_empty(nothing: Answer) -> None:
    known = lookups()
    known.succeeded(answer("10.0.0.1"), 100.0)
    assert not known.succeeded(nothing, 105.0)
    assert addresses(known) == ("10.0.0.1",)
    assert known.result is Result.EMPTY
    assert known.succeeded_at == 100.0


def test_addresses_that_are_gone_from_a_good_answer_are_gone() -> None:
    known = lookups()
    known.succeeded(answer("10.0.0.1", "10.0.0.2"), 100.0)
    assert known.succeeded(answer("10.0.0.2", "10.0.0.3"), 105.0)
    assert addresses(known) == ("10.0.0.2", "10.0.0.3")


def test_another_order_is_no_change_but_is_the_latest() -> None:
    known = lookups()
    assert known.succeeded(answer("10.0.0.1", "10.0.0.2"), 100.0)
    assert not known.succeeded(answer("10.0.0.2", "10.0.0.1"), 105.0)
    assert addresses(known) == ("10.0.0.1", "10.0.0.2")
    assert known.latest[0].addresses == ("10.0.0.2", "10.0.0.1")


def test_addresses_of_a_family_that_could_not_be_asked_for_stay() -> None:
    known = lookups()
    known.succeeded(answer("fd00::1", "10.0.0.1"), 100.0)
    assert known.succeeded(answer("10.0.0.2", missing=frozenset({6})), 105.0)
    assert addresses(known) == ("10.0.0.2", "fd00::1")
    assert known.result is Result.OK


def test_a_host_that_could_not_be_looked_up_keeps_its_addresses_beside_others() -> None:
    known = lookups()
    hosts = (Endpoint("a.test", 1, ("10.0.0.1",)), Endpoint("b.test", 1, ("10.0.0.2",)))
    known.succeeded(Answer(hosts), 100.0)
    partly = (Endpoint("a.test", 1, (), missing=BOTH), Endpoint("b.test", 1, ("10.0.0.3",)))
    problem = DiscoveryError(Result.TIMEOUT, "no answer from the name servers for a.test")
    assert known.succeeded(Answer(partly, 5.0, problem), 105.0)
    assert addresses(known) == ("10.0.0.1", "10.0.0.3")
    # It is not all well: it is told, and tried again soon.
    assert known.result is Result.TIMEOUT
    assert known.succeeded_at == 100.0
    assert known.due == 106.0


def test_hosts_that_cannot_be_looked_up_do_not_replace_one_that_could() -> None:
    known = lookups()
    known.succeeded(Answer((Endpoint("a.test", 1, ("10.0.0.1",)),)), 100.0)
    assert not known.succeeded(Answer((Endpoint("b.test", 1, (), missing=BOTH),)), 105.0)
    assert addresses(known) == ("10.0.0.1",)
    assert known.result is Result.EMPTY


def test_a_host_without_addresses_is_left_out_beside_others() -> None:
    known = lookups()
    hosts = (Endpoint("a.test", 1, ()), Endpoint("b.test", 1, ("10.0.0.2",)))
    known.succeeded(Answer(hosts), 100.0)
    assert [endpoint.host for endpoint in known.endpoints] == ["b.test"]


# Whatever comes

ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "fe80::1%eth0"])
ANSWERS = st.builds(
    Answer,
    st.lists(
        st.builds(
            Endpoint,
            st.sampled_from(["a.test", "b.test"]),
            st.just(4433),
            st.lists(ADDRESSES, unique=True).map(tuple),
            missing=st.sampled_from([frozenset[int](), frozenset({4}), frozenset({6}), BOTH]),
        ),
        unique_by=lambda endpoint: endpoint.key,
    ).map(tuple),
    st.none() | st.floats(0, 1e6),
    st.none() | st.just(NXDOMAIN),
)
OUTCOMES = ANSWERS | st.sampled_from(
    [DiscoveryError(result, "why") for result in Result if result is not Result.OK]
)


@given(
    st.floats(0.001, 1e6),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1000), OUTCOMES), min_size=1, max_size=20),
)
def test_never_too_soon_never_too_late_and_nothing_good_is_lost(
    interval: float, random: float, outcomes: list[tuple[float, Answer | DiscoveryError]]
) -> None:
    known = LookupState(interval, 0.0, lambda: random)
    now = 0.0
    for delay, outcome in outcomes:
        now += delay
        before, known_before = known.endpoints, addresses(known)
        if isinstance(outcome, DiscoveryError):
            known.failed(outcome, now)
            changed = False
        else:
            changed = known.succeeded(outcome, now)
        assert known.asked_at == now
        assert MIN_INTERVAL - 1e-9 <= known.due - now <= max(MIN_INTERVAL, interval) + 1e-9
        assert changed == (
            {(e.key, frozenset(e.addresses)) for e in known.endpoints}
            != {(e.key, frozenset(e.addresses)) for e in before}
        )
        if not changed:
            assert known.endpoints is before
        if isinstance(outcome, DiscoveryError):
            assert known.endpoints is before
        elif any(endpoint.addresses for endpoint in outcome.endpoints):
            told = {address for endpoint in outcome.endpoints for address in endpoint.addresses}
            assert told <= set(addresses(known))
        else:
            assert bool(addresses(known)) == bool(known_before)
        assert (known.succeeded_at == now) or known.result is not Result.OK
        assert bool(known.error) == (known.result is not Result.OK)
