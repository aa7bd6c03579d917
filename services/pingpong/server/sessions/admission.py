"""Who may open a session, and how fast a session may ask.

Every request is accepted, or refused with an HTTP status, fields that say what to do, and a
`Result` to count it under. The checks go from what all may know to what only some may:

    path      404   the paths are in the documentation: to say that one is unknown reveals nothing
    draining  503   no request is accepted any more, so no token needs to be verified
    origin    403   before the token: a page that is not allowed learns nothing about tokens
    token     400   two of them; 401 none, or a wrong one; 503 it cannot be verified now
    draining  503   again, since verifying may take its time

How many there may be is checked elsewhere: by the connection (429 above `Limits.max_sessions`),
and by the endpoint (CONNECTION_REFUSED above `max_connections`).

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
    """Why a request is refused: what to count, and what to answer."""

    result: Result
    status: int
    headers: Headers = ()


def _retry_after(seconds: int) -> tuple[bytes, bytes]:
    return b"retry-after", str(seconds).encode()


def _challenge(error: str = "") -> tuple[bytes, bytes]:
    """What RFC 6750, section 3, asks of a 401."""
    return b"www-authenticate", f'Bearer error="{error}"'.encode() if error else b"Bearer"


UNKNOWN_PATH = Refusal(Result.PATH, 404)
DRAINING = Refusal(Result.DRAINING, 503, (_retry_after(1),))
FORBIDDEN_ORIGIN = Refusal(Result.ORIGIN, 403)
SEVERAL_TOKENS = Refusal(Result.MALFORMED, 400, (_challenge("invalid_request"),))
NO_TOKEN = Refusal(Result.UNAUTHORIZED, 401, (_challenge(),))
WRONG_TOKEN = Refusal(Result.UNAUTHORIZED, 401, (_challenge("invalid_token"),))
UNVERIFIED_TOKEN = Refusal(Result.UNAUTHORIZED, 503, (_retry_after(2),))
"""The authority could not be asked: the request is refused, and the client may try again."""
TOO_MANY_WAIT = Refusal(Result.CAPACITY, 503, (_retry_after(2),))

Decided = Callable[[Refusal | None], None]
"""Called once, with what a request is refused with; None: it is accepted."""


class Authority(Protocol):
    """Knows which tokens are good."""

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Call `decided` about a token, once: before this returns, or later."""


class Admission:
    """Decides about requests for sessions.

    What acts on its decisions sets `draining`, and keeps `counters`.
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

        Raises `ValueError` for an origin that is none.
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
        """Call `decided` about a request, once: before this returns, or when its token is known."""
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
        # Only browsers say where the code that asks came from, and only they can be trusted to.
        if self._origins and request.origin is not None and not self._allows(request.origin):
            return FORBIDDEN_ORIGIN
        return None

    def _allows(self, origin: str) -> bool:
        # What a browser sends is ASCII; anything else must not become it by normalisation.
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
    """The token of each `Authorization` field (RFC 6750, section 2.1); None where it has none."""
    matches = [_BEARER.fullmatch(value) for name, value in headers if name == b"authorization"]
    return [match and match[1] for match in matches]


# Rates

_SECOND = 1_000_000_000


class RateLimit:
    """At most `rate` messages a second, all of which may come at once: a token bucket.

    It is exact, for any rate: times are counted in nanoseconds / `rate`, of which one message
    takes 10^9. `now` is nanoseconds from any moment on, not negative; a clock that goes back
    takes nothing away and gives nothing.
    """

    __slots__ = ("_burst", "_full_at", "_rate")

    def __init__(self, rate: int) -> None:
        """Raises `ValueError` for a rate below 1."""
        if rate < 1:
            raise ValueError(f"a rate is at least one message a second: {rate}")
        self._rate = rate
        self._burst = rate * _SECOND
        self._full_at = 0
        """When the bucket will be full again."""

    def allow(self, now: int) -> bool:
        """Whether one more may come at `now`; then it is counted."""
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
        """How many of `count` may come at `now`; those are counted."""
        now *= self._rate
        full_at = max(self._full_at, now)
        granted = max(0, min(count, (now + self._burst - full_at) // _SECOND))
        self._full_at = full_at + granted * _SECOND
        return granted
