"""Tokens of Kubernetes service accounts, verified by the cluster's API server (TokenReview).

A client sends a token that kubelet has mounted for it with the server's audience; the server asks
the API server whether it is good, and for that audience. To be allowed to ask, its own service
account is bound to the ClusterRole `system:auth-delegator`.

What the API server answered is remembered for a while, so that it is not asked at every reconnect:
a token that was revoked opens sessions for `GOOD_FOR` seconds at most. While the API server cannot
be asked, every token is refused with 503, not as a wrong one.

Asking blocks, so threads do it, a few; how many tokens may wait for them is bounded too.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ...telemetry.failure_log import FailureLogThrottle
from ...telemetry.logs import get_logger
from .. import cluster
from ..sessions.admission import TOO_MANY_WAIT, UNVERIFIED_TOKEN, WRONG_TOKEN, Decided, Refusal

GOOD_FOR = 60.0
"""Seconds for which a token that was verified is taken for good, if it does not expire before."""
BAD_FOR = 10.0
"""Seconds for which a token that was refused is not asked about again."""
REMEMBERED = 4096
"""Tokens of each kind that are remembered."""

_THREADS = 4
_ATTEMPTS = 2
_ASK_WITHIN = 5.0
"""Seconds after which a token that still waits is not asked about any more: its client is gone."""
_END_OF_TIME = 1e12
"""Seconds since 1970 that no expiry is beyond."""
_LEEWAY = 60.0
"""Seconds by which the clock here may be ahead of the API server's."""

Ask = Callable[[str], bool]
"""Asks the API server about a token; blocks. Raises `ReviewFailedError`."""


class TokenReviewError(Exception):
    """There is no cluster to ask; the text is one line that says what to do."""


class ReviewFailedError(Exception):
    """The API server could not be asked, or did not answer; the text says why, in one line.

    `is_passing`: asking again may help.
    """

    def __init__(self, text: str, *, is_passing: bool) -> None:
        super().__init__(text)
        self.is_passing = is_passing


# In a thread: asking.


def connect(audience: str, timeout: float) -> Ask:
    """Get ready to ask: in a pod as its service account, elsewhere as KUBECONFIG says.

    Slow: it imports the client library. Raises `TokenReviewError`.
    """
    from kubernetes import client

    try:
        api_client = cluster.connect("verify tokens with (PINGPONG_AUTH=kubernetes)")
    except cluster.ClusterError as error:
        raise TokenReviewError(str(error)) from None
    api = client.AuthenticationV1Api(api_client)
    return functools.partial(_ask, client, api, audience, timeout)


def _ask(client: Any, api: Any, audience: str, timeout: float, token: str) -> bool:
    body = client.V1TokenReview(
        api_version="authentication.k8s.io/v1",
        kind="TokenReview",
        spec=client.V1TokenReviewSpec(token=token, audiences=[audience]),
    )
    try:
        status = api.create_token_review(body, _request_timeout=timeout).status
    except client.ApiException as error:
        raise _refused(error.status or 0, error.reason) from None
    except Exception as error:
        # Its text may show what was sent, or what came: the token.
        raise ReviewFailedError(
            f"the API server cannot be asked: {type(error).__name__}", is_passing=True
        ) from None
    # One that knows nothing of audiences says that it is good, and leaves them out.
    return bool(status and status.authenticated and audience in (status.audiences or ()))


def _refused(status: int, reason: object) -> ReviewFailedError:
    text = cluster.refusal(status, reason)
    if status == 403:
        text = (
            "this server's service account may not create tokenreviews: bind it to the ClusterRole"
            " system:auth-delegator"
        )
    return ReviewFailedError(text, is_passing=status == 429 or status >= 500)


# On the event loop: which requests wait, and which tokens are known.


class _Job(NamedTuple):
    digest: bytes
    token: str
    asked_at: float


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
    asking; both are in seconds. Methods are for the event loop that runs when `start` is called.
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
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: dict[bytes, list[Decided]] = {}
        self._expires: dict[bytes, float | None] = {}
        self._good = _Recent()
        self._bad = _Recent()

    async def start(self, ask: Ask | None = None) -> None:
        """Get ready. Raises `TokenReviewError` where there is no cluster to ask."""
        if ask is None:
            ask = await asyncio.to_thread(connect, self._audience, self._timeout)
        loop = asyncio.get_running_loop()
        for number in range(_THREADS):
            # Daemons: the end of the process does not wait for an API server that is silent.
            threading.Thread(
                target=self._work, args=(ask, loop), name=f"token-review-{number}", daemon=True
            ).start()
        # What is wrong with the way there is logged now, not when the first client comes.
        self.authorize(b"e30.e30.e30", lambda refusal: None)

    @property
    def waiting(self) -> int:
        """Tokens that wait for the API server's answer."""
        return len(self._waiting)

    def close(self) -> None:
        """Let the threads end when they have nothing to do; pending requests get no decision."""
        self._waiting.clear()
        for _ in range(_THREADS):
            self._jobs.put(None)

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
            self._expires[digest] = expires
            self._jobs.put(_Job(digest, token.decode("ascii"), now))

    def _settle(self, digest: bytes, answer: bool | ReviewFailedError) -> None:
        now = self._clock()
        expires = self._expires.pop(digest)
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

    # In the threads.

    def _work(self, ask: Ask, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._jobs.get()) is not None:
            answer = self._review(ask, job)
            try:
                loop.call_soon_threadsafe(self._settle, job.digest, answer)
            except RuntimeError:
                return  # The loop is closed, and no request waits.

    def _review(self, ask: Ask, job: _Job) -> bool | ReviewFailedError:
        failed = ReviewFailedError("too many tokens wait to be verified", is_passing=True)
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(self._pause)
            if self._clock() - job.asked_at > _ASK_WITHIN:
                break
            try:
                return ask(job.token)
            except ReviewFailedError as error:
                failed = error
                if not error.is_passing:
                    break
        return failed


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
