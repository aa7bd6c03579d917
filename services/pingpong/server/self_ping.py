"""The server's self-ping: over WebTransport, to its own port.

It checks what a kubelet's probe cannot: that this process answers over QUIC, with new handshakes.
Each ping uses a new connection, and pins the server's certificate.
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
"""The header field of the self-ping's request; its value is a secret of this process."""

TOO_OLD_AFTER = 3
"""Intervals after which the check fails without a new answer."""

_RETRY = 0.25
"""Seconds between pings until the first answer."""
_TIMEOUT = 2.0
_ONE_PING = LinkOptions(size=HEADER_SIZE, timeout=_TIMEOUT, count=1, until=Until.SESSION_ENDED)


class _Answer(Observer):
    is_there = False

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        self.is_there = True


class SelfPing:
    """Pings the server at `addresses` every `interval` seconds, and records the results.

    `fingerprint` returns the SHA-256 of the server's current certificate.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[int, Address]],
        fingerprint: Callable[[], bytes],
        interval: float,
        config: EndpointConfig | None = None,
    ) -> None:
        self.count = 0
        """Pings that were started."""
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
        """Whether a request is of this self-ping."""
        value = request.header(HEADER)
        return value is not None and secrets.compare_digest(value, self._secret)

    def result(self, now: float) -> tuple[bool, str]:
        """The result of the check, and its reason, at `now` of the monotonic clock."""
        if self._answered_at is None:
            return False, self._failure
        age = now - self._answered_at
        if age > TOO_OLD_AFTER * self._interval + _TIMEOUT:
            return False, f"last answered {age:.0f} s ago: {self._failure}"
        return True, f"answered {age:.1f} s ago"

    async def run(self) -> None:
        """Ping repeatedly, until cancelled."""
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
            # The endpoint answered that it has the maximum number of connections, and it serves
            # those. If it stopped being ready, some load balancers would cut their flows.
            self._answered_at = time.monotonic()
            return
        self._failure = str(error) or "no answer in time"
        failed = self._throttle.failed(None, self._failure, time.monotonic())
        if failed is not None:
            self._logger.warning("self_ping_failed", error=self._failure, count=failed.count)

    async def ping(self) -> None:
        """Connect, ping, close. Raises `LinkError`, or `TimeoutError` without an answer."""
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
