"""What a link does in exact orders of events: attempts and connections are played by the test."""

from __future__ import annotations

import pytest

from pingpong.link.session import PingSession
from tests.link.links import A, B, Linked, linked, until

SILENCE = "nothing was heard of it for 1 s"


async def fall_silent(links: Linked, session: PingSession) -> None:
    """Probes stay open, and no packet has come for more than a second."""
    await until(lambda: session.open)
    session.silent_for = 1.2


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
        moved = ("moved", "the server wants the session to be left")
        if is_silent:
            assert seen == [("down", SILENCE), moved, ("up", B[0])]
        else:
            assert seen == [moved]


async def test_an_attempt_that_ends_where_the_name_no_longer_leads_is_followed_by_another() -> None:
    async with linked() as links:
        await links.attempts.next()
        links.link.located([B])
        await links.up(A)
        await links.up(B)
        moved = ("moved", f"the name does not lead to {A[0]} any more")
        assert links.seen.of("connected", "moved") == [("connected", A[0]), moved]


async def test_what_was_located_before_an_attempt_is_not_held_against_its_own_lookup() -> None:
    async with linked() as links:
        links.link.located([A])
        wire = await links.up(A)
        wire.end()
        wire = await links.up(B)
        await until(lambda: wire.pings)
        assert len(links.attempts.all) == 2
        assert links.seen.of("moved") == []
