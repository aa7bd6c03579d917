"""The table of a session's states, by the draft's text, and sessions of both roles by the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pingpong.webtransport import Connection, ConnectionHandler, SessionHandler, varint
from pingpong.webtransport.capsules import CapsuleType, encode_capsule, encode_close
from pingpong.webtransport.drafts import offered_settings
from pingpong.webtransport.errors import ErrorCode, ProtocolError, StateError
from pingpong.webtransport.events import ConnectionClosed, Request, SessionClosed
from pingpong.webtransport.http3.frames import (
    FrameType,
    StreamType,
    encode_frame,
    encode_headers,
    encode_settings,
)
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.engine import QuicConnection
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import CLIENT, SERVER, STOP_CODES, Event, State, Table, after
from pingpong.webtransport.streams import Stream, StreamHandler
from tests.webtransport.raw import CONNECT
from tests.webtransport.standins import Quic

TABLES = {"client": CLIENT, "server": SERVER}
USERS = (
    Event.SEND_REQUEST,
    Event.ACCEPT,
    Event.REJECT,
    Event.SEND_DATAGRAM,
    Event.OPEN_STREAM,
)


# The table.


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
class TestTable:
    def test_every_state_is_reached_and_left_for_good_at_its_end(self, table: Table) -> None:
        reached = {State.EXPECTED}
        for _ in State:
            reached |= {to for state in reached for to in table[state].values()}
        assert reached == table.keys()
        assert set(table[State.CLOSED].values()) == {State.CLOSED}

    def test_a_session_can_always_end(self, table: Table) -> None:
        assert all(table[state][Event.END] is State.CLOSED for state in table)

    def test_no_way_leads_back(self, table: Table) -> None:
        order = list(State)
        for state, row in table.items():
            assert all(order.index(to) >= order.index(state) for to in row.values())

    @pytest.mark.parametrize("event", USERS)
    def test_a_user_hears_of_the_state(self, table: Table, event: Event) -> None:
        for state in table.keys() - {state for state in table if event in table[state]}:
            with pytest.raises(StateError, match=rf"{state.value} cannot {event.value}"):
                after(table, state, event)


@pytest.mark.parametrize(
    ("table", "state", "event", "follows"),
    [
        # Section 3.2: "From the client's perspective, a WebTransport session is established when
        # the client receives a 2xx response.  From the server's perspective, a session is
        # established once it sends a 2xx response."
        (CLIENT, State.REQUESTED, Event.ACCEPTED, State.ESTABLISHED),
        (SERVER, State.REQUESTED, Event.ACCEPT, State.ESTABLISHED),
        (SERVER, State.REQUESTED, Event.REJECT, State.CLOSED),
        # Before that neither side here sends anything, also where a client might.
        (CLIENT, State.REQUESTED, Event.OPEN_STREAM, StateError),
        (CLIENT, State.REQUESTED, Event.SEND_DATAGRAM, StateError),
        (SERVER, State.REQUESTED, Event.OPEN_STREAM, StateError),
        (SERVER, State.REQUESTED, Event.SEND_DATAGRAM, StateError),
        (CLIENT, State.ESTABLISHED, Event.OPEN_STREAM, State.ESTABLISHED),
        (SERVER, State.ESTABLISHED, Event.SEND_DATAGRAM, State.ESTABLISHED),
        # Section 7.1: "the server MUST NOT process any incoming WebTransport requests until the
        # client's SETTINGS have been received."
        (SERVER, State.EXPECTED, Event.HEADERS, State.PENDING),
        (SERVER, State.PENDING, Event.ACCEPT, StateError),
        (SERVER, State.PENDING, Event.SETTINGS, State.REQUESTED),
        # Section 3.2: a client "MAY optimistically send capsules on the CONNECT stream before
        # receiving the server's response.  A server MUST NOT process these bytes as capsules until
        # it sends a 2xx response"; a server's answer begins with HEADERS (RFC 9114, section 4.1).
        (SERVER, State.PENDING, Event.DATA, State.PENDING),
        (SERVER, State.PENDING, Event.FIN, State.PENDING),
        (SERVER, State.REQUESTED, Event.DATA, State.REQUESTED),
        (CLIENT, State.REQUESTED, Event.DATA, ErrorCode.H3_FRAME_UNEXPECTED),
        # Section 6: a session is terminated when "the CONNECT stream is closed, either cleanly or
        # abruptly, on either side".
        (CLIENT, State.ESTABLISHED, Event.FIN, State.CLOSED),
        (SERVER, State.ESTABLISHED, Event.FIN, State.CLOSED),
        (CLIENT, State.REQUESTED, Event.FIN, State.CLOSED),
        # "it MUST NOT send any new datagrams or open any new streams."
        (CLIENT, State.CLOSED, Event.SEND_DATAGRAM, StateError),
        (SERVER, State.CLOSED, Event.OPEN_STREAM, StateError),
        # RFC 9114, section 4.1: a FIN before the request is complete, HEADERS where there is no
        # message for them, DATA before HEADERS.
        (SERVER, State.EXPECTED, Event.FIN, ErrorCode.H3_REQUEST_INCOMPLETE),
        (SERVER, State.EXPECTED, Event.DATA, ErrorCode.H3_FRAME_UNEXPECTED),
        (SERVER, State.PENDING, Event.HEADERS, ErrorCode.H3_FRAME_UNEXPECTED),
        (CLIENT, State.ESTABLISHED, Event.HEADERS, ErrorCode.H3_FRAME_UNEXPECTED),
        (SERVER, State.ESTABLISHED, Event.HEADERS, ErrorCode.H3_FRAME_UNEXPECTED),
    ],
)
def test_the_table_says_what_the_draft_says(
    table: Table, state: State, event: Event, follows: State | ErrorCode | type[StateError]
) -> None:
    if isinstance(follows, State):
        assert after(table, state, event) is follows
        return
    with pytest.raises((StateError, ProtocolError)) as raised:
        after(table, state, event)
    if isinstance(follows, ErrorCode):
        assert isinstance(raised.value, ProtocolError)
        assert raised.value.code is follows
    else:
        assert type(raised.value) is follows


# Sessions, by the table.


class Calls(SessionHandler):
    """Looks at the order of a session's calls."""

    def __init__(self) -> None:
        self.established = False
        self.closed: SessionClosed | None = None

    def session_established(self, session: Session) -> None:
        assert not self.established
        assert session.state is State.ESTABLISHED
        self.established = True

    def session_draining(self, session: Session) -> None:
        assert self.established
        assert self.closed is None

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        assert self.closed is None
        assert session.state is State.CLOSED
        self.closed = closed

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        assert self.established
        assert self.closed is None

    def stream_opened(self, stream: Stream) -> StreamHandler:
        assert self.established
        assert self.closed is None
        return super().stream_opened(stream)


class Told(ConnectionHandler):
    """Looks at the order of a connection's calls."""

    def __init__(self) -> None:
        self.requested: Session | None = None
        self.refused: SessionClosed | None = None
        self.errors: list[ProtocolError] = []
        self.closed: ConnectionClosed | None = None

    def session_requested(self, session: Session) -> None:
        assert self.requested is None
        assert session.state is State.REQUESTED
        self.requested = session

    def request_refused(self, session: Session, closed: SessionClosed) -> None:
        assert self.requested is None
        assert self.refused is None
        self.refused = closed

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        self.errors.append(error)

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        assert self.closed is None
        self.closed = closed


HEADERS = {
    "request": encode_headers(CONNECT),
    "another request": encode_headers([(b":method", b"GET")]),
    "100": encode_headers([(b":status", b"100")]),
    "200": encode_headers([(b":status", b"200")]),
    "404": encode_headers([(b":status", b"404")]),
}
CAPSULES = {
    "drain": encode_capsule(CapsuleType.WT_DRAIN_SESSION),
    "datagram": encode_capsule(CapsuleType.DATAGRAM, b"ping"),
    "unknown": encode_capsule(cast(CapsuleType, 0x1F * 5 + 0x21), b"?"),
    "close": encode_close(4, "enough"),
}


class Life(RuleBasedStateMachine):
    """A session, whatever its user and its peer do, and in which order; the model is the table."""

    @initialize(
        is_client=st.booleans(),
        settings=st.booleans(),
        request=st.sampled_from(["", "request", "request and FIN"]),
    )
    def start(self, is_client: bool, settings: bool, request: str) -> None:
        self.is_client = is_client
        self.table = CLIENT if is_client else SERVER
        self.quic = Quic(is_client=is_client)
        self.told = Told()
        self.calls = Calls()
        self.connection = Connection(cast(QuicConnection, self.quic), self.told, Limits())
        self.connection.handshake_completed()
        self.session: Session | None = None
        self.has_settings = self.has_request = False
        self.settings_control = 3 if is_client else 2
        self.state = State.EXPECTED
        self.ended = self.was_reset = False
        if is_client:
            self.send_settings()
            self.session = self.connection.open_session(Request("localhost", "/"), self.calls)
            self.state = State.REQUESTED
            return
        if request:
            self.receive_request("FIN" in request)
        if settings:
            self.send_settings()

    # The peer.

    def receive(self, data: bytes, end_stream: bool = False) -> None:
        self.ended = end_stream
        self.connection.stream_data_received(0, data, end_stream, 0)

    def may_receive(self) -> bool:
        return not self.ended and not self.was_reset and self.connection.closed is None

    @precondition(lambda self: not self.has_settings and self.connection.closed is None)
    @rule()
    def send_settings(self) -> None:
        was_pending = self.now() is State.PENDING
        self.has_settings = True
        offered = encode_settings(offered_settings(Limits(), is_client=not self.is_client))
        self.connection.stream_data_received(
            self.settings_control, varint.encode(StreamType.CONTROL) + offered, False, 0
        )
        if was_pending:
            assert self.told.requested is not None or self.told.refused is not None
            if self.ended and self.told.requested is not None:
                # The FIN that waited counts now.
                assert self.told.requested.state is State.CLOSED

    @precondition(may_receive)
    @rule(
        what=st.sampled_from(list(HEADERS)),
        capsules=st.lists(st.sampled_from(list(CAPSULES)), max_size=3),
        end=st.booleans(),
    )
    def receive_headers(self, what: str, capsules: list[str], end: bool) -> None:
        capsule = b"".join(CAPSULES[name] for name in capsules)
        data = encode_frame(FrameType.DATA, capsule) if capsules else b""
        self.has_request = True
        self.receive(HEADERS[what] + data, end)

    def peers_event(self, event: Event, code: ErrorCode, data: bytes, end_stream: bool) -> None:
        """Receive one thing: what follows is in the table, or it is an error with this code."""
        before, errors = self.now(), len(self.told.errors)
        self.receive(data, end_stream)
        if before is State.CLOSED:
            return
        if event in self.table[before]:
            assert len(self.told.errors) == errors
            assert self.now() is self.table[before][event]
        else:
            assert [error.code for error in self.told.errors[errors:]] == [code]
            assert self.now() is State.CLOSED

    def now(self) -> State:
        """The session's state, also before a server's user knows of it."""
        if self.session is not None:
            return self.session.state
        if self.told.refused is not None or (not self.may_receive() and not self.ended):
            return State.CLOSED
        if self.told.errors:
            return State.CLOSED
        return State.PENDING if self.has_request else State.EXPECTED

    @precondition(may_receive)
    @rule(name=st.sampled_from(["drain", "datagram", "unknown"]))
    def receive_data(self, name: str) -> None:
        data = encode_frame(FrameType.DATA, CAPSULES[name])
        self.peers_event(Event.DATA, ErrorCode.H3_FRAME_UNEXPECTED, data, False)

    @precondition(may_receive)
    @rule()
    def receive_close(self) -> None:
        before = self.now()
        self.receive(encode_frame(FrameType.DATA, CAPSULES["close"]))
        if before is State.ESTABLISHED:
            assert self.now() is State.CLOSED
            assert self.calls.closed is not None
            assert (self.calls.closed.code, self.calls.closed.reason) == (4, "enough")

    @precondition(may_receive)
    @rule()
    def receive_end(self) -> None:
        self.peers_event(Event.FIN, ErrorCode.H3_REQUEST_INCOMPLETE, b"", True)

    @precondition(lambda self: self.may_receive() and not self.is_client)
    @rule(end=st.booleans())
    def receive_request(self, end: bool) -> None:
        self.has_request = True
        self.receive(HEADERS["request"], end)

    @precondition(may_receive)
    @rule(code=st.sampled_from([ErrorCode.H3_REQUEST_CANCELLED, ErrorCode.WT_SESSION_GONE]))
    def receive_reset(self, code: int) -> None:
        self.was_reset = True
        self.connection.stream_reset_received(0, code, 0)

    @precondition(lambda self: self.session is not None and self.connection.closed is None)
    @rule(code=st.sampled_from([*STOP_CODES.values(), ErrorCode.H3_REQUEST_CANCELLED]))
    def receive_stop(self, code: int) -> None:
        assert self.session is not None
        stays = self.session.state is State.CLOSED or STOP_CODES.get(self.session.state) == code
        before = self.session.state
        self.connection.stop_sending_received(0, code)
        assert (self.session.state is before) is stays

    @precondition(lambda self: self.connection.closed is None)
    @rule(uni=st.booleans())
    def receive_a_stream_and_a_datagram(self, uni: bool) -> None:
        stream_id = {False: 1, True: 7}[uni] if self.is_client else {False: 4, True: 6}[uni]
        kind = StreamType.WEBTRANSPORT if uni else FrameType.WT_STREAM
        self.connection.stream_data_received(stream_id, varint.encode(kind) + b"\0x", False, 0)
        self.connection.datagram_received(b"\0ping", 0)

    @precondition(lambda self: self.has_settings and self.connection.closed is None)
    @rule()
    def lose_the_connection(self) -> None:
        self.connection.connection_terminated(0, "", False, False, True)

    # The user.

    def attempt(self, event: Event, act: Callable[[Session], Any]) -> None:
        """Do what the table allows or not, on a session that the user knows of."""
        session = self.session if self.is_client else self.told.requested
        if session is None:
            return
        before = session.state
        if event not in self.table[before]:
            with pytest.raises(StateError, match=f"{before.value} cannot {event.value}$"):
                act(session)
            assert session.state is before
            return
        act(session)
        # What came before its acceptance may end a session at once.
        assert session.state in (self.table[before][event], State.CLOSED)

    @rule()
    def accept(self) -> None:
        self.attempt(Event.ACCEPT, lambda session: session.accept(self.calls))

    @rule()
    def reject(self) -> None:
        self.attempt(Event.REJECT, lambda session: session.reject(403))

    @rule()
    def send_datagram(self) -> None:
        self.attempt(
            Event.SEND_DATAGRAM,
            lambda session: session.send_datagram(b"ping"),
        )

    @rule(uni=st.booleans())
    def open_stream(self, uni: bool) -> None:
        def act(session: Session) -> None:
            if session.state is State.ESTABLISHED and not session.can_open_stream(uni):
                # The peer has left; how is still to come.
                with pytest.raises(StateError, match="the peer allows no more"):
                    session.open_stream(StreamHandler(), unidirectional=uni)
            else:
                session.open_stream(StreamHandler(), unidirectional=uni)

        self.attempt(Event.OPEN_STREAM, act)

    @rule()
    def drain_or_close(self) -> None:
        session = self.session if self.is_client else self.told.requested
        if session is not None:
            session.drain()
            session.close(7, "done")
            assert session.state is State.CLOSED

    # What holds at any time.

    @invariant()
    def the_table_allows_it(self) -> None:
        if self.session is None and not self.is_client:
            self.session = self.told.requested
        if self.session is None:
            return
        reached = {self.state}
        for _ in State:
            reached |= {to for state in reached for to in self.table[state].values()}
        assert self.session.state in reached
        self.state = self.session.state

    @invariant()
    def its_user_knows(self) -> None:
        session = self.session
        if session is None:
            return
        if self.calls.established:
            assert session.state in (State.ESTABLISHED, State.CLOSED)
            assert (self.calls.closed is not None) == (session.state is State.CLOSED)
        assert (session in self.connection.sessions) == (session.state is not State.CLOSED)
        if session.state is State.CLOSED:
            assert not session.can_open_stream(False)

    @invariant()
    def errors_end_what_they_are_about(self) -> None:
        if self.told.errors and self.session is not None:
            assert self.session.state is State.CLOSED


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
