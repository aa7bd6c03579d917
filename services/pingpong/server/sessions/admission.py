"""Admission of sessions, and their rate limit.

A request is accepted, or refused with an HTTP status, header fields, and a `Result` for the
metrics. The order of the checks is chosen so that a refusal reveals as little as possible:

    path      404   the paths are documented, so a 404 reveals nothing
    draining  503   no request is accepted, so no token has to be verified
    origin    403   before the token: a page that is not allowed learns nothing about tokens
    token     400   two of them; 401 none, or a wrong one; 503 it cannot be verified now
    draining  503   again, since verifying may take its time

Other modules check the number of sessions: the connection (429 above `Limits.max_sessions`) and
the endpoint (CONNECTION_REFUSED above `max_connections`).

Without I/O and without a clock: `now` is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from ...webtransport import Headers, Request, serialize_origin
from .counters import Result, SessionCounters

ANY_ORIGIN = "*"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal of a request: the result for the metrics, and the response."""

    result: Result
    status: int
    headers: Headers = ()


def _retry_after(seconds: int) -> tuple[bytes, bytes]:
    return b"retry-after", str(seconds).encode()


def _challenge(error: str = "") -> tuple[bytes, bytes]:
    """The field of a 401 response (RFC 6750, section 3)."""
    return b"www-authenticate", f'Bearer error="{error}"'.encode() if error else b"Bearer"


UNKNOWN_PATH = Refusal(Result.PATH, 404)
DRAINING = Refusal(Result.DRAINING, 503, (_retry_after(1),))
FORBIDDEN_ORIGIN = Refusal(Result.ORIGIN, 403)
SEVERAL_TOKENS = Refusal(Result.MALFORMED, 400, (_challenge("invalid_request"),))
NO_TOKEN = Refusal(Result.UNAUTHORIZED, 401, (_challenge(),))
WRONG_TOKEN = Refusal(Result.UNAUTHORIZED, 401, (_challenge("invalid_token"),))
UNVERIFIED_TOKEN = Refusal(Result.UNAUTHORIZED, 503, (_retry_after(2),))
"""The token could not be verified now. The client may retry."""
TOO_MANY_WAIT = Refusal(Result.CAPACITY, 503, (_retry_after(2),))

Decided = Callable[[Refusal | None], None]
"""Called once with the refusal of a request; None: it is accepted."""


class Authority(Protocol):
    """Verifies tokens."""

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Verify a token, and call `decided` once: before this returns, or later."""


class Admission:
    """Accepts or refuses requests for sessions.

    The caller sets `draining`, and updates `counters`.
    """

    __slots__ = ("_authority", "_origins", "_paths", "counters", "draining")

    def __init__(
        self,
        paths: Collection[str],
        *,
        allowed_origins: Iterable[str] = (),
        authority: Authority | None = None,
    ) -> None:
        """Without `allowed_origins` any origin is allowed, without `authority` no token is needed.

        Raises `ValueError` for an invalid origin.
        """
        self.draining = False
        self.counters = SessionCounters()
        self._paths = paths
        origins = frozenset(
            origin if origin == ANY_ORIGIN else serialize_origin(origin)
            for origin in allowed_origins
        )
        self._origins = frozenset[str]() if ANY_ORIGIN in origins else origins
        self._authority = authority

    @property
    def active(self) -> int:
        """Sessions that are open now."""
        return self.counters.active

    def decide(self, request: Request, decided: Decided) -> None:
        """Check a request, and call `decided` once: before this returns, or later."""
        refusal = self._check(request)
        if refusal is not None or self._authority is None:
            decided(refusal)
            return
        tokens = bearer_tokens(request.headers)
        if len(tokens) != 1:
            decided(SEVERAL_TOKENS if tokens else NO_TOKEN)
        elif tokens[0] is None:
            decided(WRONG_TOKEN)
        else:
            self._authority.authorize(
                tokens[0], lambda refusal: decided(refusal or self._check_draining())
            )

    def _check(self, request: Request) -> Refusal | None:
        if request.path.partition("?")[0] not in self._paths:
            return UNKNOWN_PATH
        if refusal := self._check_draining():
            return refusal
        # Only browsers send an origin, and only theirs can be trusted.
        if self._origins and request.origin is not None and not self._allows(request.origin):
            return FORBIDDEN_ORIGIN
        return None

    def _allows(self, origin: str) -> bool:
        # Browsers send ASCII. Other text must not become a valid origin by normalisation.
        if not origin.isascii():
            return False
        try:
            return serialize_origin(origin) in self._origins
        except ValueError:
            return False

    def _check_draining(self) -> Refusal | None:
        return DRAINING if self.draining else None


# Tokens

_BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)


def bearer_tokens(headers: Headers) -> list[bytes | None]:
    """The token of each `Authorization` field (RFC 6750, section 2.1); None if it has none."""
    matches = [_BEARER.fullmatch(value) for name, value in headers if name == b"authorization"]
    return [match and match[1] for match in matches]


# Rates

_SECOND = 1_000_000_000


class RateLimit:
    """A token bucket: `rate` messages a second, with a burst of the same number.

    It is exact: times are in units of 1/`rate` nanoseconds, and a message takes 10^9 units. `now`
    is in nanoseconds, and not negative. It tolerates a clock that goes back.
    """

    __slots__ = ("_burst", "_full_at", "_rate")

    def __init__(self, rate: int) -> None:
        """Raises `ValueError` for a rate below 1."""
        if rate < 1:
            raise ValueError(f"a rate is at least one message a second: {rate}")
        self._rate = rate
        self._burst = rate * _SECOND
        self._full_at = 0
        """When the bucket will be full."""

    def allow(self, now: int) -> bool:
        """Take a token at `now`; false if there is none."""
        now *= self._rate
        full_at = self._full_at
        if full_at <= now:
            self._full_at = now + _SECOND
            return True
        full_at += _SECOND
        if full_at - now > self._burst:
            return False
        self._full_at = full_at
        return True

    def take(self, now: int, count: int) -> int:
        """Take up to `count` tokens at `now`; returns how many."""
        now *= self._rate
        full_at = max(self._full_at, now)
        granted = max(0, min(count, (now + self._burst - full_at) // _SECOND))
        self._full_at = full_at + granted * _SECOND
        return granted
