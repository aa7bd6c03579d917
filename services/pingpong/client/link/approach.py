"""Connects to where a target is by now: it is looked up again as long as nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from ...webtransport import Address
from ...webtransport.asyncio import ClientConnection, ConnectError, Target, more_telling

LOOK_AGAIN = 0.5
"""Seconds without an answer before it is asked again where the target is.

Whoever is asked may look less often; `Discovery.fresh` does so once a second at most.
"""

Whereabouts: TypeAlias = tuple[Target, Sequence[tuple[int, Address]]]
Find: TypeAlias = Callable[[], Awaitable[Whereabouts]]
Connect: TypeAlias = Callable[
    [Target, Sequence[tuple[int, Address]]], Coroutine[Any, Any, ClientConnection]
]


async def approach(find: Find, connect: Connect, known: Whereabouts) -> ClientConnection:
    """Connect to one of the addresses that are `known`, or that `find` comes to know meanwhile.

    An address that is gone stays silent for ever, as that of a pod does; what has taken its place
    is elsewhere. It is tried beside the others, as soon as the name leads there.

    Raises `ConnectError` when all attempts have failed.
    """
    target, addresses = known
    tried = set(addresses)
    attempts = {asyncio.create_task(connect(target, addresses))}
    looking = asyncio.create_task(_find_later(find))
    failure: ConnectError | None = None
    try:
        while attempts:
            await asyncio.wait({*attempts, looking}, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [each for each in attempts if each.done()]:
                attempts.discard(attempt)
                error = attempt.exception()
                if not isinstance(error, ConnectError):
                    return attempt.result()
                failure = more_telling(failure, error)
            if looking.done() and attempts:
                found = looking.result()
                if found is not None:
                    target, addresses = found
                    more = [each for each in addresses if each not in tried]
                    tried.update(more)
                    if more:
                        attempts.add(asyncio.create_task(connect(target, more)))
                looking = asyncio.create_task(_find_later(find))
    finally:
        looking.cancel()
        # Nothing is awaited here: whoever is cancelled meanwhile would drop what is returned.
        for attempt in attempts:
            attempt.add_done_callback(_leave)
            attempt.cancel()
    assert failure is not None
    raise failure.again()


def _leave(attempt: asyncio.Task[ClientConnection]) -> None:
    """Close what an attempt made that nobody wants any more."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


async def _find_later(find: Find) -> Whereabouts | None:
    await asyncio.sleep(LOOK_AGAIN)
    try:
        return await find()
    except ConnectError:
        return None  # What was known before still holds.
