"""Tokens of Kubernetes service accounts, verified by the cluster's API server (TokenReview).

A client sends a token that kubelet has mounted for it with the server's audience; the server asks
the API server whether it is good, and for that audience. To be allowed to ask, its own service
account is bound to the ClusterRole `system:auth-delegator`.

What the API server answered is remembered for a while, so that it is not asked at every reconnect:
a token that was revoked opens sessions for `GOOD_FOR` seconds at most. While the API server cannot
be asked, every token is refused with 503, not as a wrong one.

A few reviews are asked for at a time; how many tokens may wait for one is bounded too.
"""

# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from kubernetes.aio.client import (
    ApiException,
    AuthenticationV1Api,
    V1TokenReview,
    V1TokenReviewSpec,
)

from ... import cluster
from ...settings.command_line import named
from ...telemetry.failure_log import FailureLogThrottle
from ...telemetry.logs import get_logger
from .. import ServeError
from ..sessions.admission import TOO_MANY_WAIT, UNVERIFIED_TOKEN, WRONG_TOKEN, Decided, Refusal

GOOD_FOR = 60.0
"""Seconds for which a token that was verified is taken for good, if it does not expire before."""
BAD_FOR = 10.0
"""Seconds for which a token that was refused is not asked about again."""
REMEMBERED = 4096
"""Tokens of each kind that are remembered."""

_AT_A_TIME = 4
"""Reviews that are asked for at a time."""
_ATTEMPTS = 2
_ASK_WITHIN = 5.0
"""Seconds after which a token that still waits is not asked about any more: its client is gone."""
_PROBE = b"e30.e30.e30"
"""A token that is reviewed at the start, to find out whether reviews are allowed."""
_END_OF_TIME = 1e12
"""Seconds since 1970 that no expiry is beyond."""
_LEEWAY = 60.0
"""Seconds by which the clock here may be ahead of the API server's."""


class ReviewFailedError(Exception):
    """The API server could not be asked, or did not answer; the text says why, in one line.

    `is_passing`: asking again may help.
    """

    def __init__(self, text: str, *, is_passing: bool) -> None:
        super().__init__(text)
        self.is_passing = is_passing


class _Recent:
    """Digests of tokens, each until a time; the oldest is forgotten for a new one."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def has(self, digest: bytes, now: float) -> bool:
        return self._until.get(digest, now) > now

    def add(self, digest: bytes, until: float) -> None:
        self._until.pop(digest, None)
        if len(self._until) >= REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[digest] = until


class TokenReviewer:
    """The tokens that the cluster knows for an audience: an `admission.Authority`.

    At most `max_waiting` tokens wait for an answer; however many ask with the same token, it is
    asked about once, or twice with a `pause` between where that may help. `timeout` bounds each
    asking; both are in seconds.
    """

    def __init__(
        self,
        audience: str,
        *,
        max_waiting: int = 64,
        timeout: float = 3.0,
        pause: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._audience = audience
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._pause = pause
        self._clock = clock
        self._wall_clock = wall_clock
        self._logger = get_logger("pingpong.server.token_review")
        self._throttle = FailureLogThrottle()
        self._connection = AsyncExitStack()
        self._api: AuthenticationV1Api | None = None
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._reviews: set[asyncio.Task[None]] = set()
        self._waiting: dict[bytes, list[Decided]] = {}
        self._good = _Recent()
        self._bad = _Recent()

    async def start(self) -> None:
        """Find the cluster. Raises `ServeError` where there is none."""
        try:
            api_client = await self._connection.enter_async_context(
                cluster.connect(named("auth", "kubernetes"))
            )
        except cluster.ClusterError as error:
            raise ServeError(str(error)) from None
        self._api = AuthenticationV1Api(api_client)
        # What is wrong with the connection is logged now, not when the first client comes.
        self.authorize(_PROBE, lambda refusal: None)

    @property
    def waiting(self) -> int:
        """Tokens that wait for the API server's answer."""
        return len(self._waiting)

    async def close(self) -> None:
        """Cancel what is being asked; pending requests get no decision."""
        self._waiting.clear()
        self._max_waiting = 0  # What comes from now on is refused.
        for review in self._reviews:
            review.cancel()
        await asyncio.gather(*self._reviews, return_exceptions=True)
        await self._connection.aclose()

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Decide at once where the token is known, otherwise later: `admission.Authority`."""
        claims = _claims(token)
        if claims is None:
            decided(WRONG_TOKEN)
            return
        expires = claims.get("exp")
        # Whatever JSON can say, NaN and numbers beyond a float's among it.
        if not (isinstance(expires, int | float) and abs(expires) < _END_OF_TIME):
            expires = None
        digest = hashlib.sha256(token).digest()
        now = self._clock()
        if self._good.has(digest, now):
            decided(None)
        elif self._bad.has(digest, now) or (
            expires is not None and expires + _LEEWAY < self._wall_clock()
        ):
            decided(WRONG_TOKEN)
        elif digest in self._waiting:
            self._waiting[digest].append(decided)
        elif self.waiting >= self._max_waiting:
            decided(TOO_MANY_WAIT)
        else:
            self._waiting[digest] = [decided]
            review = asyncio.create_task(self._review(digest, token.decode("ascii"), expires, now))
            self._reviews.add(review)
            review.add_done_callback(self._reviews.discard)

    async def _review(
        self, digest: bytes, token: str, expires: float | None, asked_at: float
    ) -> None:
        async with self._slots:
            answer = await self._ask_twice(token, asked_at)
        self._settle(digest, answer, expires)

    async def _ask_twice(self, token: str, asked_at: float) -> bool | ReviewFailedError:
        failed = ReviewFailedError("too many tokens wait to be verified", is_passing=True)
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._pause)
            if self._clock() - asked_at > _ASK_WITHIN:
                break
            try:
                return await self._ask(token)
            except ReviewFailedError as error:
                failed = error
                if not error.is_passing:
                    break
        return failed

    async def _ask(self, token: str) -> bool:
        """Ask the API server about a token. Raises `ReviewFailedError`."""
        assert self._api is not None, "the reviewer has not been started"
        review = V1TokenReview(
            api_version="authentication.k8s.io/v1",
            kind="TokenReview",
            spec=V1TokenReviewSpec(token=token, audiences=[self._audience]),
        )
        try:
            answer = await self._api.create_token_review(review, _request_timeout=self._timeout)
        except Exception as error:
            raise _failure(error) from None
        status = answer.status
        # An API server that does not know audiences answers "authenticated" without any.
        return bool(status and status.authenticated and self._audience in (status.audiences or ()))

    def _settle(
        self, digest: bytes, answer: bool | ReviewFailedError, expires: float | None
    ) -> None:
        now = self._clock()
        refusal: Refusal | None = None
        if isinstance(answer, ReviewFailedError):
            refusal = UNVERIFIED_TOKEN
            if self._throttle.failed(None, str(answer), now) is not None:
                self._logger.error("token_review_failed", error=str(answer))
        else:
            if self._throttle.succeeded(None, now) is not None:
                self._logger.info("token_review_recovered")
            if answer:
                left = GOOD_FOR if expires is None else expires - self._wall_clock()
                self._good.add(digest, now + min(GOOD_FOR, left))
            else:
                refusal = WRONG_TOKEN
                self._bad.add(digest, now + BAD_FOR)
        loop = asyncio.get_running_loop()
        for decided in self._waiting.pop(digest, ()):
            # Each on its own: one that fails is nothing to the others.
            loop.call_soon(decided, refusal)


def _failure(error: Exception) -> ReviewFailedError:
    if isinstance(error, ApiException) and error.status is not None:
        text = cluster.explain(error)
        if error.status == 403:
            text = (
                "this server's service account may not create tokenreviews: bind it to the"
                " ClusterRole system:auth-delegator"
            )
        return ReviewFailedError(text, is_passing=error.status == 429 or error.status >= 500)
    return ReviewFailedError(cluster.explain(error), is_passing=True)


def _claims(token: bytes) -> dict[str, Any] | None:
    """What a JSON Web Token says of itself, unverified; None where it is none."""
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None
