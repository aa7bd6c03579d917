"""Tokens verified by a cluster: the real client library against an API server of ours."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pingpong.server import ServeError
from pingpong.server.auth import token_review
from pingpong.server.auth.token_review import TokenReviewer
from pingpong.server.sessions.admission import (
    TOO_MANY_WAIT,
    UNVERIFIED_TOKEN,
    WRONG_TOKEN,
    Refusal,
)
from pingpong.server.sessions.counters import Result
from tests.support.held import held
from tests.support.kubernetes_api import GOOD, REVIEWS, ApiServer, jwt
from tests.support.kubernetes_api import TOKEN as OWN_TOKEN

Events = list[dict[str, Any]]
WALL = 1_800_000_000.0
TOKEN = jwt("client")
NESTED = base64.urlsafe_b64encode(b"[" * 9000).rstrip(b"=")


class Clock:
    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return 1000 + self.passed

    def wall(self) -> float:
        return WALL + self.passed


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Reviewing:
    """A reviewer, and what it decided."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.reviewer = TokenReviewer(
            "pingpong", pause=0.01, clock=clock.monotonic, wall_clock=clock.wall, **options
        )

    def begin(self, token: bytes = TOKEN) -> asyncio.Future[Refusal | None]:
        decided: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self.reviewer.authorize(token, decided.set_result)
        return decided

    async def ask(self, token: bytes = TOKEN) -> Refusal | None:
        async with asyncio.timeout(20):
            return await self.begin(token)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)

    async def turns(self) -> None:
        """Let the event loop take some turns."""
        for _ in range(20):
            await asyncio.sleep(0)


Start = Callable[..., Awaitable[Reviewing]]


@pytest.fixture
async def start(clock: Clock) -> AsyncIterator[Start]:
    """Makes reviewers that have finished with what they do at their start."""
    made: list[Reviewing] = []

    async def start(**options: Any) -> Reviewing:
        reviewing = Reviewing(clock, **options)
        await reviewing.reviewer.start()
        await reviewing.until(lambda: not reviewing.reviewer.waiting)
        made.append(reviewing)
        return reviewing

    yield start
    for reviewing in made:
        await reviewing.reviewer.close()


# What the API server says


async def test_a_token_that_the_cluster_knows_for_the_audience(
    api: ApiServer, start: Start
) -> None:
    reviewing = await start()
    assert await reviewing.ask() is None
    [request] = api.requests
    assert (request.verb, request.path) == ("create", REVIEWS)
    assert request.credential == f"Bearer {OWN_TOKEN}"
    assert request.body["kind"] == "TokenReview"
    assert request.body["spec"] == {"token": TOKEN.decode(), "audiences": ["pingpong"]}


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False, "error": "[invalid bearer token, token has expired]"},
        {},
        {"authenticated": True, "audiences": ["https://kubernetes.default.svc"]},
        {"authenticated": True, "audiences": []},
        {"authenticated": True},
        {"authenticated": False, "audiences": ["pingpong"]},
    ],
)
async def test_a_token_that_is_not_for_this_server(
    api: ApiServer, start: Start, status: dict[str, Any], logged: Events
) -> None:
    api.instead = lambda request: status
    reviewing = await start()
    assert await reviewing.ask() == WRONG_TOKEN
    assert logged == []


@pytest.mark.parametrize(
    "token",
    [b"", b"abc", b"a.b", b"a.b.c.d", b"..", b"a.!.c", b"e30.W10.x", b"e30." + NESTED + b".x"],
    ids=range(8),
)
async def test_what_is_no_service_accounts_token_is_not_asked_about(
    api: ApiServer, start: Start, token: bytes
) -> None:
    reviewing = await start()
    assert await reviewing.ask(token) == WRONG_TOKEN
    assert api.reviewed == []


# What is remembered


async def test_a_good_token_is_asked_about_once_a_minute(
    api: ApiServer, start: Start, clock: Clock
) -> None:
    reviewing = await start()
    for seconds, asked in ((0, 1), (59.9, 1), (60.1, 2), (119.9, 2)):
        clock.passed = seconds
        assert await reviewing.ask() is None
        assert len(api.reviewed) == asked
    api.instead = lambda request: {"authenticated": False}
    clock.passed = 121
    assert await reviewing.ask() == WRONG_TOKEN


async def test_a_good_token_is_not_remembered_past_its_end(
    api: ApiServer, start: Start, clock: Clock
) -> None:
    reviewing = await start()
    token = jwt("short", exp=WALL + 30)
    for seconds, asked in ((0, 1), (29.9, 1), (30.1, 2), (31, 3)):
        clock.passed = seconds
        assert await reviewing.ask(token) is None
        assert len(api.reviewed) == asked


async def test_a_token_that_has_expired_is_not_asked_about(
    api: ApiServer, start: Start, clock: Clock
) -> None:
    reviewing = await start()
    assert await reviewing.ask(jwt("old", exp=WALL - 61)) == WRONG_TOKEN
    assert api.reviewed == []
    # The clock here may be ahead.
    assert await reviewing.ask(jwt("skewed", exp=WALL - 59)) is None
    assert await reviewing.ask(jwt("odd", exp="tomorrow")) is None


async def test_a_bad_token_is_not_asked_about_for_a_while(
    api: ApiServer, start: Start, clock: Clock
) -> None:
    api.instead = lambda request: {"authenticated": False}
    reviewing = await start()
    for seconds, asked in ((0, 1), (9.9, 1), (10.1, 2)):
        clock.passed = seconds
        assert await reviewing.ask() == WRONG_TOKEN
        assert len(api.reviewed) == asked


async def test_what_is_remembered_is_bounded_and_bad_ones_push_out_no_good_one(
    api: ApiServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_review, "REMEMBERED", 3)
    good = jwt("good").decode()
    api.instead = lambda request: GOOD if request.token == good else {"authenticated": False}
    reviewing = await start()
    assert await reviewing.ask(jwt("good")) is None
    for number in range(5):
        assert await reviewing.ask(jwt(f"bad {number}")) == WRONG_TOKEN
    # Three are known still, and no earlier one.
    for number, asked in ((2, 1), (3, 1), (4, 1), (0, 2)):
        bad = jwt(f"bad {number}")
        assert await reviewing.ask(bad) == WRONG_TOKEN
        assert api.reviewed.count(bad.decode()) == asked
    assert await reviewing.ask(jwt("good")) is None
    assert api.reviewed.count(good) == 1


async def test_no_token_is_kept(api: ApiServer, start: Start) -> None:
    reviewing = await start()
    await reviewing.ask()
    assert not reviewing.reviewer.waiting
    kept = held(reviewing.reviewer)
    assert TOKEN not in kept
    assert TOKEN.decode() not in kept


# Who waits


async def test_many_with_one_token_share_one_review(api: ApiServer, start: Start) -> None:
    reviewing = await start(max_waiting=1)
    api.hold()
    decisions = [reviewing.begin() for _ in range(20)]
    await reviewing.until(lambda: len(api.reviewed) == 1)
    assert not any(decision.done() for decision in decisions)
    api.release()
    assert await asyncio.gather(*decisions) == [None] * 20
    assert len(api.reviewed) == 1


async def test_how_many_tokens_may_wait_is_bounded(api: ApiServer, start: Start) -> None:
    reviewing = await start(max_waiting=6)
    api.hold()
    waiting = [reviewing.begin(jwt(f"{number}")) for number in range(6)]
    assert await reviewing.ask(jwt("one too many")) == TOO_MANY_WAIT
    assert (TOO_MANY_WAIT.result, TOO_MANY_WAIT.status) == ("capacity", 503)
    api.release()
    assert await asyncio.gather(*waiting) == [None] * 6
    assert await reviewing.ask(jwt("one too many")) is None


async def test_a_few_are_asked_about_at_a_time(api: ApiServer, start: Start) -> None:
    reviewing = await start()
    api.hold()
    decisions = [reviewing.begin(jwt(f"{number}")) for number in range(8)]
    await reviewing.until(lambda: len(api.reviewed) == 4)
    await reviewing.turns()
    assert len(api.reviewed) == 4
    api.release()
    assert await asyncio.gather(*decisions) == [None] * 8


async def test_one_whose_decision_fails_is_nothing_to_the_others(
    api: ApiServer, start: Start
) -> None:
    reviewing = await start()
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, facts: failures.append(facts))
    api.hold()

    def fail(refusal: Refusal | None) -> None:
        raise RuntimeError("of the handler")

    reviewing.reviewer.authorize(TOKEN, fail)
    decided = reviewing.begin()
    api.release()
    assert await decided is None
    assert len(failures) == 1


async def test_close_cancels_what_is_asked_and_what_waits(api: ApiServer, start: Start) -> None:
    reviewing = await start()
    api.hold()
    decisions = [reviewing.begin(jwt(f"{number}")) for number in range(8)]
    await reviewing.until(lambda: len(api.reviewed) == 4)
    await reviewing.reviewer.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not any(decision.done() for decision in decisions)
    assert await reviewing.ask(jwt("late")) == TOO_MANY_WAIT


# An API server that cannot be asked


async def assert_unverified(reviewing: Reviewing, logged: Events, text: str) -> None:
    refusal = await reviewing.ask()
    assert refusal == UNVERIFIED_TOKEN
    assert (refusal.result, refusal.status) == (Result.UNAUTHORIZED, 503)
    assert logged[-1]["event"] == "token_review_failed"
    assert text in logged[-1]["error"]
    assert "\n" not in logged[-1]["error"]
    assert TOKEN.decode() not in str(logged)


async def test_errors_are_tried_once_more_and_never_let_anybody_in(
    api: ApiServer, start: Start, logged: Events
) -> None:
    api.instead = lambda request: 500
    reviewing = await start()
    await assert_unverified(reviewing, logged, "the API server answered 500")
    assert len(api.reviewed) == 2
    # Nothing is remembered of that.
    answers: list[dict[str, Any] | int] = [503, GOOD]
    api.instead = lambda request: answers.pop(0)
    assert await reviewing.ask() is None
    assert [event["event"] for event in logged] == ["token_review_failed", "token_review_recovered"]


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "system:auth-delegator"), (401, "check the service account"), (404, "answered 404")],
)
async def test_what_only_an_operator_can_change_is_not_tried_again(
    api: ApiServer, start: Start, status: int, advice: str, logged: Events
) -> None:
    api.instead = lambda request: status
    reviewing = await start()
    await assert_unverified(reviewing, logged, advice)
    assert len(api.reviewed) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"spec": 1}', b"{}"])
async def test_an_answer_that_is_none_lets_nobody_in(
    api: ApiServer, start: Start, content: bytes, logged: Events
) -> None:
    api.instead = lambda request: content
    reviewing = await start()
    assert await reviewing.ask() in (UNVERIFIED_TOKEN, WRONG_TOKEN)
    assert TOKEN.decode() not in str(logged)


async def test_an_api_server_that_does_not_answer_in_time(
    api: ApiServer, start: Start, logged: Events
) -> None:
    reviewing = await start(timeout=0.1)
    api.hold()
    await assert_unverified(reviewing, logged, "the API server does not answer")


async def test_an_api_server_that_is_not_there(
    api: ApiServer, start: Start, logged: Events, clock: Clock
) -> None:
    reviewing = await start()
    api.close()
    await assert_unverified(
        reviewing, logged, "cannot connect to the API server: Connection refused"
    )
    for seconds in range(1, 65):
        clock.passed = seconds
        assert await reviewing.ask(jwt(f"{seconds}")) == UNVERIFIED_TOKEN
    assert [event["event"] for event in logged] == ["token_review_failed"] * 2


async def test_that_it_is_not_there_is_told_at_the_start(
    api: ApiServer, start: Start, logged: Events
) -> None:
    api.close()
    await start()
    assert [event["event"] for event in logged] == ["token_review_failed"]


async def test_who_waited_too_long_is_not_asked_about(
    api: ApiServer, start: Start, clock: Clock, logged: Events
) -> None:
    reviewing = await start()
    api.hold()
    first = [reviewing.begin(jwt(f"{number}")) for number in range(4)]
    await reviewing.until(lambda: len(api.reviewed) == 4)
    late = reviewing.begin(jwt("late"))
    clock.passed = 5.1
    api.release()
    assert await late == UNVERIFIED_TOKEN
    assert await asyncio.gather(*first) == [None] * 4
    assert jwt("late").decode() not in api.reviewed
    assert "too many tokens wait" in logged[0]["error"]


async def test_the_client_librarys_own_logs_show_no_token(
    api: ApiServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api.instead = lambda request: 500 if len(api.reviewed) == 1 else GOOD
    reviewing = await start()
    assert await reviewing.ask() is None
    assert TOKEN.decode() not in caplog.text


# Where the cluster is


async def test_no_cluster_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ServeError) as caught:
        await TokenReviewer("pingpong").start()
    text = str(caught.value)
    assert text.startswith("--auth kubernetes (PINGPONG_AUTH) needs a Kubernetes cluster: ")
    assert "set KUBECONFIG" in text
