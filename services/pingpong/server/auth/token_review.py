"""Tokens of Kubernetes service accounts, verified by the cluster's API server (TokenReview).

A client sends a token that kubelet has mounted for it with the server's audience. The server asks
the API server whether it is valid for that audience, for which its own service account is bound to
the ClusterRole `system:auth-delegator`.

Answers are cached, so that not every reconnect is a request: a revoked token opens sessions for at
most `GOOD_FOR` seconds. While the API server does not answer, tokens that are not cached are refused
with 503, not as wrong ones.

The number of concurrent reviews, and of tokens that wait for one, is limited.
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
"""Seconds for which a valid token is cached, at most until it expires."""
BAD_FOR = 10.0
"""Seconds for which an invalid token is cached."""
REMEMBERED = 4096
"""Maximum cached tokens, valid and invalid each."""

_AT_A_TIME = 4
"""Maximum concurrent reviews."""
_ATTEMPTS = 2
_ASK_WITHIN = 5.0
"""Seconds after which a waiting token is no longer reviewed: its client has given up."""
_PROBE = b"e30.e30.e30"
"""A token that is reviewed at the start, to check whether reviews are allowed."""
_END_OF_TIME = 1e12
"""Seconds since 1970; a later expiry is ignored."""
_LEEWAY = 60.0
"""Seconds by which this machine's clock may be ahead of the API server's."""


class ReviewFailedError(Exception):
    """A request to the API server failed; the text says why, in one line.

    `is_temporary`: a retry may help.
    """

    def __init__(self, text: str, *, is_temporary: bool) -> None:
        super().__init__(text)
        self.is_temporary = is_temporary


class _Recent:
    """A cache of tokens' digests, each until a time; a new one replaces the oldest."""

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
    """Verifies the cluster's tokens for an audience: an `admission.Authority`.

    At most `max_waiting` tokens wait for an answer. Concurrent requests with the same token share
    one review, which is retried once after `pause` if that may help. `timeout` limits each request;
    both are in seconds.
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
        """Connect to the cluster. Raises `ServeError` if there is none."""
        try:
            api_client = await self._connection.enter_async_context(
                cluster.connect(named("auth", "kubernetes"))
            )
        except cluster.ClusterError as error:
            raise ServeError(str(error)) from None
        self._api = AuthenticationV1Api(api_client)
        # An error is logged now, not when the first client connects.
        self.authorize(_PROBE, lambda refusal: None)

    @property
    def waiting(self) -> int:
        """The number of tokens that wait for an answer."""
        return len(self._waiting)

    async def close(self) -> None:
        """Cancel all reviews; pending requests get no decision."""
        self._waiting.clear()
        self._max_waiting = 0  # Later requests are refused.
        for review in self._reviews:
            review.cancel()
        await asyncio.gather(*self._reviews, return_exceptions=True)
        await self._connection.aclose()

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Decide immediately if the token is cached, otherwise later: `admission.Authority`."""
        claims = _claims(token)
        if claims is None:
            decided(WRONG_TOKEN)
            return
        expires = claims.get("exp")
        # JSON may have NaN, and numbers that are too large for a float.
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
        failed = ReviewFailedError("too many tokens wait to be verified", is_temporary=True)
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._pause)
            if self._clock() - asked_at > _ASK_WITHIN:
                break
            try:
                return await self._ask(token)
            except ReviewFailedError as error:
                failed = error
                if not error.is_temporary:
                    break
        return failed

    async def _ask(self, token: str) -> bool:
        """Review a token. Raises `ReviewFailedError`."""
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
        # An API server without support for audiences answers "authenticated" without any.
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
            # Separately: an exception of one does not affect the others.
            loop.call_soon(decided, refusal)


def _failure(error: Exception) -> ReviewFailedError:
    if isinstance(error, ApiException) and error.status is not None:
        text = cluster.explain(error)
        if error.status == 403:
            text = (
                "this server's service account may not create tokenreviews: bind it to the"
                " ClusterRole system:auth-delegator"
            )
        return ReviewFailedError(text, is_temporary=error.status == 429 or error.status >= 500)
    return ReviewFailedError(cluster.explain(error), is_temporary=True)


def _claims(token: bytes) -> dict[str, Any] | None:
    """The unverified claims of a JSON Web Token; None if it is not one."""
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None
