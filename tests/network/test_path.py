from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tests.support.network.path import NANOSECONDS, Fate, Impairment, Path, Verdict

MS = NANOSECONDS // 1000


def decide(
    impairment: Impairment,
    count: int = 1000,
    *,
    size: int = 100,
    interval: int = MS,
    seed: str = "seed",
    start: int = 0,
) -> list[Fate]:
    """The fates of packets that come one each interval."""
    path = Path(seed)
    path.impairment = impairment
    return [path.decide(start + n * interval, size, "flow") for n in range(count)]


def verdicts(fates: list[Fate], verdict: Verdict) -> int:
    return sum(fate.verdict is verdict for fate in fates)


def assert_likelihood(count: int, of: int, likelihood: float) -> None:
    """Within 4 standard deviations of what is to be expected."""
    deviation = math.sqrt(of * likelihood * (1 - likelihood))
    assert abs(count - of * likelihood) < 4 * deviation
    assert count


def test_a_path_without_impairments_delivers_each_packet_once_and_at_once() -> None:
    assert decide(Impairment()) == [Fate(Verdict.DELIVERED, n * MS, 0) for n in range(1000)]


def test_a_delay_is_the_same_for_all() -> None:
    fates = decide(Impairment(delay=0.05))
    assert [fate.due for fate in fates] == [(n + 50) * MS for n in range(1000)]


def delays(fates: list[Fate]) -> list[float]:
    return [(fate.due - n * MS) / NANOSECONDS for n, fate in enumerate(fates)]


def test_jitter_is_spread_evenly_around_the_delay() -> None:
    found = sorted(delays(decide(Impairment(delay=0.05, jitter=0.01), 1600)))
    assert 0.04 <= found[0] < 0.0402
    assert 0.0598 < found[-1] <= 0.06
    for share in (0.25, 0.5, 0.75):
        assert found[int(1600 * share)] == pytest.approx(0.04 + 0.02 * share, abs=0.001)


def test_jitter_has_its_mean_within_each_sixteen_packets() -> None:
    found = delays(decide(Impairment(delay=0.05, jitter=0.016), 320))
    for start in range(0, 320, 16):
        assert sum(found[start : start + 16]) / 16 == pytest.approx(0.05, abs=0.001)


def test_jitter_never_makes_a_packet_arrive_before_it_was_sent() -> None:
    assert min(delays(decide(Impairment(delay=0.001, jitter=0.01)))) == 0


def test_jitter_lets_packets_overtake_each_other_unless_told_not_to() -> None:
    jitter = Impairment(delay=0.05, jitter=0.01)
    assert any(b.due < a.due for a, b in pairwise(decide(jitter)))
    kept = Impairment(delay=0.05, jitter=0.01, keep_order=True)
    assert all(b.due >= a.due for a, b in pairwise(decide(kept)))


def test_loss_is_by_chance_and_as_likely_as_told() -> None:
    fates = decide(Impairment(loss=0.1), 10_000)
    assert_likelihood(verdicts(fates, Verdict.LOST), 10_000, 0.1)
    pairs = sum(a.verdict is b.verdict is Verdict.LOST for a, b in pairwise(fates))
    assert_likelihood(pairs, 10_000, 0.01)


def test_duplicates_are_as_likely_as_told() -> None:
    fates = decide(Impairment(duplicate=0.05), 10_000)
    assert {fate.copies for fate in fates} == {0, 1}
    assert_likelihood(sum(fate.copies for fate in fates), 10_000, 0.05)


def test_held_back_packets_are_evenly_spread() -> None:
    found = delays(decide(Impairment(delay=0.01, reorder=0.125, hold=0.02), 1600))
    assert {round(delay, 6) for delay in found} == {0.01, 0.03}
    for start in range(0, 1600, 16):
        assert sum(delay > 0.02 for delay in found[start : start + 16]) == 2


def test_held_back_packets_are_overtaken_even_where_the_order_is_kept() -> None:
    what = Impairment(delay=0.01, jitter=0.005, keep_order=True, reorder=0.125, hold=0.04)
    fates = decide(what, 160)
    overtaken = sum(any(b.due < a.due for b in fates[n + 1 :]) for n, a in enumerate(fates))
    assert 10 <= overtaken <= 20


def test_a_rate_limit_spaces_packets_by_their_size() -> None:
    fates = decide(Impairment(rate=1e6, burst=0), 50, size=1250, interval=0)
    assert [fate.due for fate in fates] == [(n + 1) * 10 * MS for n in range(50)]


def test_a_rate_limit_lets_a_burst_go_at_once_after_a_pause() -> None:
    path = Path("seed")
    path.impairment = Impairment(rate=1e6, burst=2500)
    for start in (0, 1000 * MS):
        due = [path.decide(start, 1250, "flow").due - start for _ in range(4)]
        assert due == [0, 0, 10 * MS, 20 * MS]


def test_what_finds_no_room_before_the_rate_limit_is_dropped() -> None:
    fates = decide(Impairment(rate=1e6, burst=0, queue=12_500), 50, size=1250, interval=0)
    assert [fate.verdict for fate in fates] == [Verdict.DELIVERED] * 10 + [Verdict.OVERFLOWED] * 40
    # A packet that went makes room for the next.
    fates = decide(Impairment(rate=1e6, burst=0, queue=12_500), 50, size=1250, interval=10 * MS)
    assert verdicts(fates, Verdict.OVERFLOWED) == 0


def test_larger_packets_than_the_mtu_do_not_pass() -> None:
    assert verdicts(decide(Impairment(mtu=1280), size=1281), Verdict.TOO_BIG) == 1000
    assert verdicts(decide(Impairment(mtu=1280), size=1280), Verdict.DELIVERED) == 1000


def test_nothing_passes_a_blackhole() -> None:
    assert verdicts(decide(Impairment(blackhole=True)), Verdict.BLACKHOLED) == 1000


EVERYTHING = Impairment(
    delay=0.01, jitter=0.005, loss=0.1, duplicate=0.1, reorder=0.1, hold=0.1, rate=1e6
)


def test_the_same_seed_gives_the_same_luck_and_another_seed_another() -> None:
    assert decide(EVERYTHING) == decide(EVERYTHING)
    assert decide(EVERYTHING) != decide(EVERYTHING, seed="another")


def test_a_flow_has_its_luck_whatever_other_flows_do() -> None:
    path = Path("seed")
    path.impairment = Impairment(jitter=0.005, delay=0.01, loss=0.1, duplicate=0.1)
    mixed = []
    for n in range(1000):
        mixed.append(path.decide(n * MS, 100, "flow"))
        if n % 3:
            path.decide(n * MS, 100, "another")
    assert mixed == decide(path.impairment)


def test_a_change_holds_from_the_next_packet_on() -> None:
    path = Path("seed")
    before = path.decide(0, 100, "flow")
    path.impairment = Impairment(delay=1.0)
    after = path.decide(0, 100, "flow")
    assert (before.due, after.due) == (0, NANOSECONDS)
