"""Requests for sessions, over real QUIC and HTTP/3: who is let in, and how each is counted."""

from __future__ import annotations

import pytest

from pingpong.server.sessions.admission import WRONG_TOKEN, Admission, Decided
from pingpong.server.sessions.counters import Result
from pingpong.server.sessions.handlers import PATHS, Router
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.events import Headers
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import State
from tests.webtransport.raw import CONNECT, NO_FLOW_CONTROL, capsule
from tests.webtransport.wire import Recorder, Wire

AUTHORIZATION = ((b"authorization", b"Bearer good"),)


class Slow:
    """An authority that decides when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Decided] = []

    def authorize(self, token: bytes, decided: Decided) -> None:
        self.waiting.append(decided)


class Quick:
    """An authority that decides at once."""

    def authorize(self, token: bytes, decided: Decided) -> None:
        decided(None if token == b"good" else WRONG_TOKEN)


class Asked:
    """A server with this admission, and clients."""

    def __init__(
        self,
        admission: Admission | None = None,
        *,
        raw: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.router = Router(1000, admission=admission, rate_limit=1000)
        self.wire = Wire(raw_client=raw, server_limits=limits or Limits(), connect=False)
        self.wire.server.decide = self.router.session_requested
        # What the connection tells is for the router.
        self.wire.server.request_refused = self.router.request_refused  # type: ignore[method-assign]
        self.wire.connect()

    def session(
        self, path: str = "/ping", origin: str | None = None, headers: Headers = ()
    ) -> tuple[Session, Recorder]:
        return self.wire.session(path=path, origin=origin, headers=headers)

    def status(
        self, path: str = "/ping", origin: str | None = None, headers: Headers = ()
    ) -> int | None:
        """What a request is answered with."""
        session, recorder = self.session(path, origin, headers)
        if session.state is State.ESTABLISHED:
            return 200
        assert recorder.closed is not None
        return recorder.closed.status

    def assert_results(self, **expected: int) -> None:
        results = self.router.admission.counters.results
        assert results.keys() == set(Result)
        assert {result.value: count for result, count in results.items() if count} == expected


def test_each_refusal_is_a_status_and_counted() -> None:
    admission = Admission(PATHS, allowed_origins=["https://app.example"], authority=Quick())
    asked = Asked(admission)
    assert asked.status("/nowhere", headers=AUTHORIZATION) == 404
    assert asked.status(origin="https://evil.example", headers=AUTHORIZATION) == 403
    assert asked.status(origin="https://app.example") == 401
    assert asked.status(headers=((b"authorization", b"Bearer bad"),)) == 401
    assert asked.status(headers=AUTHORIZATION * 2) == 400
    assert asked.status(headers=AUTHORIZATION) == 200
    admission.draining = True
    assert asked.status(headers=AUTHORIZATION) == 503
    asked.assert_results(path=1, origin=1, unauthorized=2, malformed=1, accepted=1, draining=1)


def test_a_refusal_says_what_is_missing() -> None:
    asked = Asked(Admission(PATHS, authority=Quick()), raw=True)
    asked.wire.raw.send_settings()
    stream_id = asked.wire.raw.request()
    asked.wire.run()
    assert asked.wire.raw.status(stream_id) == 401
    assert asked.wire.raw.headers(stream_id)[b"www-authenticate"] == b"Bearer"
    asked.router.admission.draining = True
    stream_id = asked.wire.raw.request()
    asked.wire.run()
    assert asked.wire.raw.status(stream_id) == 503
    assert asked.wire.raw.headers(stream_id)[b"retry-after"].isdigit()


# What the connection refuses without asking


def changed(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(key, value if key == name else old) for key, old in CONNECT]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            [(name, value) for name, value in changed(b":method", b"GET") if name != b":protocol"],
            id="GET",
        ),
        pytest.param(changed(b":protocol", b"connect-udp"), id="another protocol"),
        pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1")], id="plain CONNECT"),
        pytest.param(changed(b":scheme", b"http"), id="not https"),
        pytest.param([*CONNECT, (b"connection", b"close")], id="a field that is not allowed"),
        pytest.param([(b"a", b"b" * 20_000), *CONNECT], id="too large"),
    ],
)
def test_requests_for_something_else_are_counted_as_malformed(headers: Headers) -> None:
    asked = Asked(raw=True)
    asked.wire.raw.send_settings()
    asked.wire.raw.request(headers)
    asked.wire.run()
    asked.assert_results(malformed=1)


def test_more_sessions_than_a_connection_may_have_are_counted() -> None:
    asked = Asked(limits=Limits(max_sessions=2))
    assert [asked.status() for _ in range(3)] == [200, 200, 429]
    asked.assert_results(accepted=2, capacity=1)


def test_a_second_session_without_flow_control_is_counted() -> None:
    asked = Asked(raw=True)
    asked.wire.raw.send_settings(NO_FLOW_CONTROL)
    asked.wire.raw.request()
    asked.wire.raw.request()
    asked.wire.run()
    asked.assert_results(accepted=1, capacity=1)


def test_a_request_behind_goaway_is_counted() -> None:
    asked = Asked(raw=True)
    asked.wire.raw.send_settings()
    asked.wire.run()
    asked.wire.server.connection.drain()
    asked.wire.raw.request()
    asked.wire.run()
    asked.assert_results(draining=1)


@pytest.mark.parametrize("settings_first", [False, True])
def test_a_request_that_the_client_takes_back_is_not_counted(settings_first: bool) -> None:
    asked = Asked(raw=True)
    if settings_first:
        asked.wire.raw.send_settings()
    stream_id = asked.wire.raw.open(b"\x01")
    asked.wire.run()
    asked.wire.raw.reset(stream_id)
    asked.wire.run()
    asked.assert_results()


# Sessions that are decided on later


def test_what_comes_before_the_decision_is_answered_after_it() -> None:
    slow = Slow()
    asked = Asked(Admission(PATHS, authority=slow))
    session, recorder = asked.session(headers=AUTHORIZATION)
    assert session.state is State.REQUESTED
    asked.assert_results()
    (decided,) = slow.waiting
    decided(None)
    asked.wire.run()
    assert recorder.established == 1
    assert session.send_datagram(b"ping")
    asked.wire.run()
    assert recorder.datagrams == [b"pong"]
    asked.assert_results(accepted=1)


def test_a_decision_for_a_client_that_has_gone_is_nothing() -> None:
    slow = Slow()
    asked = Asked(Admission(PATHS, authority=slow))
    left, _ = asked.session(headers=AUTHORIZATION)
    left.close()
    asked.wire.run()
    asked.session(headers=AUTHORIZATION)
    asked.wire.client.connection.close()
    asked.wire.run()
    for decided in slow.waiting:
        decided(None)
    assert len(slow.waiting) == 2
    asked.assert_results()
    assert asked.router.admission.active == 0
    asked.wire.run()


def test_a_drain_while_the_token_is_verified() -> None:
    slow = Slow()
    asked = Asked(Admission(PATHS, authority=slow))
    _, recorder = asked.session(headers=AUTHORIZATION)
    asked.router.admission.draining = True
    asked.wire.server.connection.drain()
    slow.waiting[0](None)
    asked.wire.run()
    assert recorder.closed is not None
    assert recorder.closed.status == 503
    asked.assert_results(draining=1)


# Sessions that are open


@pytest.mark.parametrize("how", ["close", "reset", "server", "connection"])
@pytest.mark.parametrize("path", ["/ping", "/echo"])
def test_open_sessions_are_counted_and_timed(path: str, how: str) -> None:
    now = 50_000_000_000
    asked = Asked()
    asked.router.counters.clock = lambda: now
    sessions = asked.router.admission.counters
    session, _ = asked.session(path)
    now = 52_000_000_000
    asked.session(path)
    assert sessions.active == 2
    assert sessions.durations.count == 0
    now = 53_500_000_000
    if how == "close":
        session.close(3, "done")
    elif how == "reset":
        session._connect.abort(0x10C)
    elif how == "server":
        asked.wire.server.sessions[0].close()
    else:
        asked.wire.client.connection.close()
    asked.wire.run()
    ended = 2 if how == "connection" else 1
    assert sessions.active == 2 - ended
    assert sessions.durations.count == ended
    assert sessions.durations.sum == (3.5 if ended == 1 else 5.0)
    asked.assert_results(accepted=2)


def test_a_session_that_ends_with_its_request_is_counted_once() -> None:
    asked = Asked(raw=True)
    asked.wire.raw.send_settings()
    stream_id = asked.wire.raw.request()
    asked.wire.raw.send(
        stream_id, capsule(CapsuleType.WT_CLOSE_SESSION, (7).to_bytes(4, "big")), end=True
    )
    asked.wire.run()
    asked.assert_results(accepted=1)
    assert asked.router.admission.active == 0
    assert asked.router.admission.counters.durations.count == 1
