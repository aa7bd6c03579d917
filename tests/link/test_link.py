"""What a link does in exact orders of events: attempts and connections are played by the test."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pingpong.link.schedule import FLOOD_WAIT
from pingpong.link.session import PingSession
from tests.link.links import A, B, Linked, Seen, Wire, linked, refused, until

SILENCE = "no packets received for 1 s"


async def fall_silent(links: Linked, session: PingSession) -> None:
    """Probes stay open, and no packet has come for more than a second."""
    await until(lambda: session.unresponsive_for > 0)
    assert session.open
    session.unresponsive_for = 1.2


@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_move_from_a_silent_session_is_an_outage_whatever_it_is_for(
    is_silent: bool,
) -> None:
    async with linked() as links:
        old = await links.up(A)
        old.drain()
        await links.attempts.next()
        if is_silent:
            await fall_silent(links, old.session)
        await links.up(B)
        seen = links.seen.of("down", "moved", "up")[1:]
        moved = ("moved", "the server is draining the session")
        if is_silent:
            assert seen == [("down", SILENCE), moved, ("up", B[0])]
        else:
            assert seen == [moved]


async def test_a_move_from_a_dead_server_to_its_successor_elsewhere_is_an_outage() -> None:
    async with linked() as links:
        old = await links.up(A)
        await until(lambda: old.pings)
        old.refuse()
        links.link.addresses_changed([B])
        await links.up(B)
        seen = links.seen.of("down", "moved", "up")[1:]
        assert seen == [
            ("down", "the server stopped: its UDP port is closed"),
            ("moved", f"the name no longer resolves to {A[0]}"),
            ("up", B[0]),
        ]


async def test_an_attempt_that_ends_where_the_name_no_longer_leads_is_followed_by_another() -> None:
    async with linked() as links:
        await links.attempts.next()
        links.link.addresses_changed([B])
        await links.up(A)
        await links.up(B)
        moved = ("moved", f"the name no longer resolves to {A[0]}")
        assert links.seen.of("connected", "moved") == [("connected", A[0]), moved]


async def test_what_was_located_before_an_attempt_is_not_held_against_its_own_lookup() -> None:
    async with linked() as links:
        links.link.addresses_changed([A])
        wire = await links.up(A)
        wire.end()
        wire = await links.up(B)
        await until(lambda: wire.pings)
        assert len(links.attempts.all) == 2
        assert links.seen.of("moved") == []


async def test_a_stop_of_this_process_during_an_attempt_is_no_pause_of_its_own() -> None:
    async with linked(backoff=(1.5, 1.5), timeout=0.1) as links:
        (await links.up(A)).end()
        last_answer = time.monotonic()
        links.link.connect_now()
        (await links.attempts.next()).set_exception(refused())
        await until(lambda: links.seen.of("connect_failed"))
        failed_at = time.monotonic()
        attempt = await links.attempts.next()
        pause = links.attempts.dialed_at - failed_at
        time.sleep(0.6)  # as where this process is stopped
        for _ in range(2):
            await asyncio.sleep(0)  # its timers are due, and have their turn
        wire = Wire(B)
        attempt.set_result(wire)
        await until(lambda: wire.pings)
        wire.answer()
        seconds = time.monotonic() - last_answer
        outage = links.seen.outages[-1]
        assert outage is not None
        assert pause > 0.5
        # But for 0.15 s of it: how exactly the end of an outage is found.
        expected = seconds - 0.6 - (pause - 0.15)
        # The stop is noticed from when stock was to be taken: every 0.1 s.
        assert 0 < outage.duration_ns / 1e9 < expected + 0.25


async def test_an_attempt_that_fails_as_it_comes_to_be_unwanted_is_reported() -> None:
    async with linked() as links:
        wire = await links.up(A)
        links.link.addresses_changed([B])
        attempt = await links.attempts.next()
        attempt.set_exception(refused())
        links.link.addresses_changed([A])
        await until(lambda: links.seen.of("connect_failed"))
        await until(lambda: wire.pings)
        assert links.seen.of("connect_failed") == [("connect_failed", "nothing listens")]


async def test_a_fault_in_an_attempt_that_comes_to_be_unwanted_ends_the_link() -> None:
    async with linked() as links:
        await links.up(A)
        links.link.addresses_changed([B])
        attempt = await links.attempts.next()
        attempt.set_exception(ZeroDivisionError("a fault"))
        links.link.addresses_changed([A])
        with pytest.raises(ZeroDivisionError, match="a fault"):
            await links.task


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_session_that_comes_to_be_unwanted_is_closed_as_what_it_is(is_over: bool) -> None:
    async with linked() as links:
        await links.up(A)
        links.link.addresses_changed([B])
        attempt = await links.attempts.next()
        unwanted = Wire(B)

        def opened() -> None:
            if is_over:
                unwanted.drain()
                unwanted.end()
            links.link.addresses_changed([A])

        unwanted.opened = opened
        attempt.set_result(unwanted)
        await until(lambda: unwanted.is_closed)
        assert links.seen.of("moved") == []
        assert links.seen.of("closed") == [("closed", "drain" if is_over else "closed")]


@pytest.mark.parametrize("tried", [A, B])
async def test_only_a_refusal_by_its_own_host_counts_against_a_session(
    tried: tuple[str, int],
) -> None:
    async with linked(interval=10.0, backoff=(0.6, 0.6)) as links:
        wire = await links.up(A)
        wire.refuse()
        refused_at = time.monotonic()
        links.link.connect_now()
        await links.attempts.next()
        await until(lambda: time.monotonic() > refused_at + 0.5)
        links.attempts.all[-1].set_exception(refused(tried))
        await until(lambda: links.seen.of("connect_failed"))
        assert bool(links.seen.of("closed")) == (tried == A)


@pytest.mark.parametrize("is_heard", [True, False])
async def test_refusals_with_a_packet_of_the_server_in_between_end_no_session(
    is_heard: bool,
) -> None:
    """Probes are rare, and keep-alives are acknowledged meanwhile."""
    async with linked(interval=10.0) as links:
        wire = await links.up(A)
        wire.refuse()
        refused_at = time.monotonic()
        await until(lambda: time.monotonic() > refused_at + 0.5)
        if is_heard:
            wire.received_packets += 1
        wire.refuse()
        assert (wire.session.end_reason is None) == is_heard


async def test_an_answer_on_a_session_that_was_replaced_counts_where_no_other_stands() -> None:
    """The outage begins after it; that the target is up again, it does not show."""
    async with linked() as links:
        old = await links.up(A)
        await until(lambda: old.pings)
        links.link.addresses_changed([B])
        (await links.up(B)).end()
        attempt = await links.attempts.next()
        began = time.monotonic()
        await until(lambda: time.monotonic() > began + 0.2)
        answered_at = time.monotonic_ns()
        old.answer()
        assert not links.link.availability.is_up
        wire = Wire(B)
        attempt.set_result(wire)
        await until(lambda: wire.pings)
        wire.answer()
        outage = links.seen.outages[-1]
        assert outage is not None
        assert outage.duration_ns <= time.monotonic_ns() - answered_at


class Faulty(Seen):
    def __init__(self, call: str) -> None:
        super().__init__()
        setattr(self, call, self._fail)
        self.is_faulty = False

    def _fail(self, *_: object) -> None:
        if self.is_faulty:
            raise ZeroDivisionError("a fault")


@pytest.mark.parametrize("call", ["dialed", "moved"])
async def test_an_observer_s_fault_leaves_no_session_open(call: str) -> None:
    seen = Faulty(call)
    async with linked(seen) as links:
        old = await links.up(A)
        seen.is_faulty = True
        links.link.addresses_changed([B])
        new = await links.attempts.succeed(B)
        with pytest.raises(ZeroDivisionError, match="a fault"):
            await links.task
    assert old.is_closed
    assert new.is_closed


async def test_in_a_flood_an_answer_triggers_the_next_probe_of_its_own_mode_only() -> None:
    options: dict[str, Any] = {"is_flood": True, "modes": ("datagram", "uni"), "warms_up": False}
    async with linked(**options) as links:
        began = time.monotonic()
        wire = await links.attempts.succeed(A)
        await until(lambda: wire.pings)
        while wire.sent < 200:
            await asyncio.sleep(0)
            if wire.pings:
                wire.answer(wire.pings[0])
        seconds = time.monotonic() - began
        # Without an answer, a probe is sent every 10 ms.
        assert wire.streams <= 2 + seconds / FLOOD_WAIT


async def test_a_server_that_repeats_itself_where_nothing_can_be_sent_is_an_outage() -> None:
    async with linked(timeout=0.02) as links:
        wire = await links.up(A)

        def refuse(data: bytes) -> bool:
            wire.unsent_packets += 1
            wire.received_packets += 1
            return True

        wire.send_datagram = refuse  # type: ignore[method-assign]
        await until(lambda: links.seen.of("down"))


async def test_a_close_that_is_cancelled_leaves_no_session_open() -> None:
    async with linked() as links:
        wire = await links.up(A)
        closing = asyncio.create_task(links.link.close())
        await asyncio.sleep(0)  # it has come to where it waits
        closing.cancel()
        await asyncio.wait([closing])
        await until(lambda: wire.is_closed)


@pytest.mark.asyncio
async def test_a_target_that_owes_nothing_is_left_alone() -> None:
    async with linked(interval=3600, timeout=0.02) as made:
        wire = await made.up()
        checks = 0
        check = wire.session.check

        def counted(now: float, awake: float) -> None:
            nonlocal checks
            checks += 1
            check(now, awake)

        wire.session.check = counted  # type: ignore[method-assign]
        await asyncio.sleep(0.3)
        assert checks <= 2  # the one that was due, and one that finds nothing open
        wire.end()
        await made.up()
        assert made.seen.of("up") == [("up", A[0])] * 2


@pytest.mark.asyncio
async def test_a_stop_of_this_process_is_no_part_of_an_outage_that_begins_after_it() -> None:
    async with linked(interval=0.2, timeout=0.02) as made:
        wire = await made.up()
        await until(lambda: wire.pings)
        wire.answer()
        await asyncio.sleep(0.05)  # nothing is awaited any more
        time.sleep(1.0)  # as where this process is stopped
        await until(lambda: wire.pings)
        wire.end()
        await made.up()
        outage = made.seen.outages[-1]
        assert outage is not None
        # It is noticed from when the next probe was due.
        assert outage.duration_ns / 1e9 < 0.2 + 0.25
