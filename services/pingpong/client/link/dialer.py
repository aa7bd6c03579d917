"""Makes sessions with targets: a fresh lookup, a fresh socket, and today's authorities and token."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ...settings import ProbeSettings
from ...webtransport import Address, Windows
from ...webtransport.asyncio import (
    Cause,
    ClientConnection,
    ConnectError,
    EndpointConfig,
    Target,
    open_connection,
)
from ..probe.metrics import TargetCounts
from .approach import Whereabouts, approach
from .connecting import LinkError, authorization
from .presence import IDLE_TIMEOUT
from .probe_session import ProbeSession, SessionOwner

if TYPE_CHECKING:
    from ..discovery import Destination

_ANSWER_STREAMS = 1024
"""Streams that a server may have open for its answers (mode uni)."""
_SHORTEST_TIMEOUT = 0.001
_ROUNDING = 0.01
"""Seconds by which a timeout may come before its deadline."""
_BREATH = 0.003
"""Seconds that the event loop has for everything else before another attempt begins."""
_MAX_BREATHS = 5
_AT_ONCE = 8
"""Attempts under way that the next one does not wait for."""
_LONGEST_TURN = 0.2
"""Seconds after which an attempt is not waited for either."""

_RESULTS = {
    Cause.NAME: "dns",
    Cause.NO_ANSWER: "timeout",
    Cause.REFUSED_HERE: "refused",
    Cause.UNREACHABLE: "refused",
    Cause.CERTIFICATE: "tls",
    Cause.ALPN: "alpn",
    Cause.REFUSED: "refused",
    Cause.NO_WEBTRANSPORT: "settings",
    Cause.STATUS: "http_status",
    Cause.SESSION: "refused",
}
_UNAUTHORIZED = (401, 403)

Lookup = Callable[[str], Awaitable["Destination"]]
"""Where a target is now, by its name."""


class DialError(Exception):
    """There is no session; the text says why.

    `result` is one of `metrics.CONNECT_RESULTS`.
    """

    def __init__(self, result: str, message: str) -> None:
        super().__init__(message)
        self.result = result


class _Turns:
    """Lets attempts begin one after the other: a hundred at one moment would all time out.

    The next one waits until the event loop keeps up, so that probes go out in time, and until few
    others are under way, so that a server gets done with them. Those that take long, as at a server
    that is not there, hold up nobody else.
    """

    def __init__(self) -> None:
        self._next = asyncio.Lock()
        self._room = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        async with self._next:
            await self._room.acquire()
            room = ExitStack()
            room.callback(self._room.release)
            timer = asyncio.get_running_loop().call_later(_LONGEST_TURN, room.close)
            try:
                await self._breathe()
            except BaseException:
                room.close()
                raise
        try:
            yield
        finally:
            timer.cancel()
            room.close()

    async def _breathe(self) -> None:
        for _ in range(_MAX_BREATHS):
            began = time.monotonic()
            await asyncio.sleep(_BREATH)
            if time.monotonic() - began < 2 * _BREATH:
                break


class Dialer:
    """Makes sessions as the settings say. Files are read anew each time: they are rotated."""

    def __init__(self, settings: ProbeSettings, lookup: Lookup) -> None:
        self._settings = settings
        self._lookup = lookup
        self._turns = _Turns()
        self._config = EndpointConfig(
            idle_timeout=IDLE_TIMEOUT, windows=Windows(streams_uni=_ANSWER_STREAMS)
        )

    async def dial(
        self, name: str, counts: TargetCounts, owner: SessionOwner, *, avoid: str | None = None
    ) -> ProbeSession:
        """Make a session with the target of that name; the address `avoid` is tried last.

        What becomes of it is counted, unless it is cancelled. Raises `DialError`.
        """
        try:
            async with self._turns.turn():
                deadline = time.monotonic() + self._settings.connect_timeout
                session = await self._dial(name, counts, owner, avoid, deadline)
        except ConnectError as error:
            result = _RESULTS[error.cause]
            if error.status in _UNAUTHORIZED:
                result = "unauthorized"
            elif error.cause is Cause.SESSION and _left(deadline) <= _ROUNDING:
                result = "timeout"
            text = str(error)
        except LinkError as error:
            result, text = "unauthorized", error.text
        else:
            counts.connects["ok"] += 1
            return session
        counts.connects[result] += 1
        raise DialError(result, text)

    async def _dial(
        self,
        name: str,
        counts: TargetCounts,
        owner: SessionOwner,
        avoid: str | None,
        deadline: float,
    ) -> ProbeSession:
        headers = authorization(self._settings.token_file)
        began = time.monotonic()
        known = await self._find(name, deadline)
        counts.connect_duration["resolve"].observe(time.monotonic() - began)

        async def connect(
            target: Target, addresses: Sequence[tuple[int, Address]]
        ) -> ClientConnection:
            return await open_connection(
                target,
                config=self._config,
                timeout=_left(deadline),
                addresses=sorted(addresses, key=lambda entry: entry[1][0] == avoid),
            )

        client = await approach(lambda: self._find(name, deadline), connect, known)
        try:
            # Also of a server that then has no session for us.
            counts.not_after = _not_after(client)
            session = ProbeSession(client, self._settings, counts, owner)
            await session.establish(headers, _left(deadline))
        except ConnectError:
            await client.close(0)
            raise
        except BaseException:
            client.abort()
            raise
        for phase in ("handshake", "session"):
            took = getattr(client.timings, phase)
            if took is not None:
                counts.connect_duration[phase].observe(took * 1e-9)
        return session

    async def _find(self, name: str, deadline: float) -> Whereabouts:
        """Where it is now, and what to insist on there. Raises `ConnectError`."""
        settings = self._settings
        try:
            async with asyncio.timeout(_left(deadline)):
                destination = await self._lookup(name)
        except TimeoutError:
            waited = f"{settings.connect_timeout:g} s"
            raise ConnectError(Cause.NAME, f"no address for {name} within {waited}") from None
        except LookupError:
            raise ConnectError(Cause.NAME, f"{name} is no target any more") from None
        target = Target.from_url(
            destination.url,
            ca_file=None if settings.ca_file is None else str(settings.ca_file),
            certificate_hash=settings.cert_hash,
            insecure=settings.insecure,
        )
        addresses = list(_socket_addresses(destination.addresses, target.port))
        if not addresses:
            raise ConnectError(Cause.NAME, f"no address for {target.host}")
        return target, addresses


def _socket_addresses(addresses: Sequence[str], port: int) -> Iterator[tuple[int, Address]]:
    """IP addresses as the socket module takes them; what is none is left out."""
    for address in addresses:
        try:
            found = socket.getaddrinfo(
                address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
        except OSError:
            continue
        for family, _, _, _, socket_address in found:
            yield family, socket_address


def _not_after(client: ClientConnection) -> float | None:
    """When the server's certificate expires, in seconds since 1970."""
    certificate = client.connection.quic.peer_certificate
    return None if certificate is None else certificate.not_valid_after_utc.timestamp()


def _left(deadline: float) -> float:
    # Rounded, since it is told to people.
    return max(round(deadline - time.monotonic(), 2), _SHORTEST_TIMEOUT)
