"""Packets in turns: who sends much waits, who sends little does not."""

from __future__ import annotations

from pingpong.webtransport.quic.fair_queue import (
    MAX_ALL_PACKETS,
    MAX_PACKETS,
    QUANTUM,
    FairQueue,
    Flow,
)


def queue() -> FairQueue:
    return FairQueue(lambda: 0.0)


def test_a_flow_passes_until_it_has_had_its_share() -> None:
    one = queue()
    busy, calm = Flow(), Flow()
    assert one.may_process(busy)
    busy.spent += QUANTUM
    assert not one.may_process(busy)
    assert one.may_process(calm)
    one.next_round()
    assert one.may_process(busy)


def test_what_was_taken_beyond_a_share_is_paid_by_later_turns() -> None:
    one = queue()
    flow = Flow()
    one.may_process(flow)
    flow.spent += 3.5 * QUANTUM
    passed = []
    for _ in range(5):
        one.next_round()
        passed.append(one.may_process(flow))
    assert passed == [False, False, True, True, True]
    # What was not used is not saved up.
    for _ in range(10):
        one.next_round()
    one.may_process(flow)
    flow.spent += QUANTUM
    assert not one.may_process(flow)


def test_packets_of_a_flow_stay_in_order_and_flows_take_turns() -> None:
    one = queue()
    flows = [Flow(), Flow()]
    for number in range(3):
        for flow in flows[: 2 if number < 2 else 1]:
            assert one.enqueue(flow, (number,))
    # One that has packets waiting must not overtake them.
    one.next_round()
    assert not one.may_process(flows[0])
    taken = []
    while (item := one.dequeue()) is not None:
        taken.append((flows.index(item[0]), item[1][0]))
    assert taken == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert one.length == 0
    assert all(one.may_process(flow) for flow in flows)


def test_what_waits_is_bounded_and_shared() -> None:
    one = queue()
    flow = Flow()
    assert sum(one.enqueue(flow, ()) for _ in range(2 * MAX_PACKETS)) == MAX_PACKETS
    many = [Flow() for _ in range(100)]
    for _ in range(MAX_PACKETS):
        for other in many:
            one.enqueue(other, ())
    assert one.length <= MAX_ALL_PACKETS + MAX_PACKETS + len(many)
    # The last to come has a place as well.
    assert one.enqueue(Flow(), ())


def test_more_flows_than_packets_may_wait_all_go_on_afterwards() -> None:
    one = queue()
    flows = [Flow() for _ in range(3 * MAX_ALL_PACKETS)]
    for flow in flows:
        one.enqueue(flow, ())
    # As an endpoint does: it comes back while packets wait.
    while one.length:
        one.dequeue()
    assert all(one.may_process(flow) for flow in flows)
