"""A server that pings itself, over WebTransport through its own port.

What no probe of a kubelet can say: that this process answers over QUIC, to those who shake hands
anew. Each time it is a new connection, and the certificate that the server shows is to be its own.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from ..link import Dialer, Link, LinkError, LinkOptions, Observer, Resolved, Until
from ..ping import HEADER_SIZE
from ..statistics import Answer
from ..telemetry.failure_log import FailureLogThrottle
from ..telemetry.logs import get_logger
from ..webtransport import Address, Request
from ..webtransport.asyncio import Cause, EndpointConfig, Target

HEADER = b"pingpong-self"
"""The field by which a server knows its own request; its value is a secret of this process."""

TOO_OLD_AFTER = 3
"""Intervals after which the last answer is too old."""

_RETRY = 0.25
"""Seconds until the next ping, as long as none was answered yet."""
_TIMEOUT = 2.0
_ONE_PING = LinkOptions(size=HEADER_SIZE, timeout=_TIMEOUT, count=1, until=Until.SESSION_ENDED)


class _Answer(Observer):
    is_there = False

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        self.is_there = True


class SelfPing:
    """Pings the server at `addresses` each `interval` seconds, and knows when that last succeeded.

    `fingerprint` gives the SHA-256 of the certificate that the server shows now.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[int, Address]],
        fingerprint: Callable[[], bytes],
        interval: float,
        config: EndpointConfig | None = None,
    ) -> None:
        self.count = 0
        """Pings that were begun."""
        self._addresses = addresses
        self._fingerprint = fingerprint
        self._interval = interval
        self._secret = secrets.token_hex(16).encode()
        headers = ((HEADER, self._secret),)
        self._dialer = Dialer(timeout=_TIMEOUT, headers=lambda: headers, config=config)
        self._answered_at: float | None = None
        self._failure = "not answered yet"
        self._throttle = FailureLogThrottle()
        self._logger = get_logger("pingpong.server.self_ping")

    def recognizes(self, request: Request) -> bool:
        """Whether a request is this one's."""
        value = request.header(HEADER)
        return value is not None and secrets.compare_digest(value, self._secret)

    def result(self, now: float) -> tuple[bool, str]:
        """Whether the server answered itself lately, at `now` of the monotonic clock, and why."""
        if self._answered_at is None:
            return False, self._failure
        age = now - self._answered_at
        if age > TOO_OLD_AFTER * self._interval + _TIMEOUT:
            return False, f"last answered {age:.0f} s ago: {self._failure}"
        return True, f"answered {age:.1f} s ago"

    async def run(self) -> None:
        """Ping until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self.ping()
            except Exception as error:
                self._failed(error)
            else:
                self._succeeded()
            pause = self._interval if self._answered_at is not None else _RETRY
            await asyncio.sleep(max(began + pause - time.monotonic(), 0))

    def _succeeded(self) -> None:
        self._answered_at = time.monotonic()
        recovered = self._throttle.succeeded(None, self._answered_at)
        if recovered is not None:
            self._logger.info("self_ping_recovered", seconds=round(recovered.seconds, 1))

    def _failed(self, error: Exception) -> None:
        cause = error.cause if isinstance(error, LinkError) else None
        is_full = cause is not None and cause.cause is Cause.REFUSED
        if is_full and self._answered_at is not None:
            # Its own endpoint says so, over the socket: it has all the clients that it takes, and
            # serves those. To call that unready would send them away, where it cuts their flows.
            self._answered_at = time.monotonic()
            return
        self._failure = str(error) or "no answer in time"
        failed = self._throttle.failed(None, self._failure, time.monotonic())
        if failed is not None:
            self._logger.warning("self_ping_failed", error=self._failure, count=failed.count)

    async def ping(self) -> None:
        """Connect, ping, leave. Raises `LinkError`, or `TimeoutError` where no answer came."""
        self.count += 1
        host, port = self._addresses[0][1][:2]
        target = Target(str(host), int(port), "/ping", certificate_hash=self._fingerprint())

        async def find() -> Resolved:
            return Resolved(target, self._addresses)

        answer = _Answer()
        link = Link(target.host, find, self._dialer, answer, _ONE_PING)
        try:
            await link.run()
        finally:
            await link.close()
        if not answer.is_there:
            raise TimeoutError
