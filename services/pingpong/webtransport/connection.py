"""One HTTP/3 connection: routes what a QUIC engine reports to sessions and streams.

No I/O; both roles. A stream of the peer begins as an `UntypedStream` until its first bytes say
what it is; then its bytes go to the object that it belongs to, found by one look-up. Code that
finds an error of the peer raises it; `fail` turns it into a frame.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import ExitStack

from .buffering import BufferedStream, DiscardedStream, Receiver, SessionBuffers, UntypedStream
from .deadlines import DATAGRAMS, SESSION, SETTINGS, Deadlines, timeout_error
from .drafts import (
    Draft,
    NoWebTransportError,
    check_settings,
    client_draft,
    is_lenient,
    offered_settings,
    server_draft,
)
from .errors import (
    ConnectionProtocolError,
    ErrorCode,
    ProtocolError,
    StateError,
    StreamProtocolError,
)
from .events import ConnectionClosed, Headers, Request, SessionClosed
from .http3.control import CriticalStreams, LocalControlStream
from .http3.frames import FrameType, StreamType, decode_quarter_id, encode_settings
from .http3.messages import request_headers
from .limits import Limits
from .quic.engine import Address, QuicConnection
from .session import Session, SessionHandler
from .states import State
from .streams import Stream
from .varint import decode as decode_varint
from .varint import encode as encode_varint

_SESSION_STREAM = encode_varint(FrameType.WT_STREAM)
"""How every bidirectional stream of a session begins."""


class ConnectionHandler:
    """Callbacks of a connection, in the turn in which a packet arrived; no-ops by default."""

    __slots__ = ()

    def connection_ready(self, connection: Connection) -> None:
        """The peer's SETTINGS arrived. A client knows its `draft` and may open sessions."""

    def session_requested(self, session: Session) -> None:
        """Server: a client requests a session. Call its `accept` or `reject`, now or later."""
        session.reject(404)

    def request_refused(self, session: Session, closed: SessionClosed) -> None:
        """Server: a request ended before `session_requested` was called.

        Either the server refused it (malformed, or above a limit; `closed` has the answer), or the
        client cancelled it (`closed.by_peer`).
        """

    def connect_streams_closed(self, connection: Connection) -> None:
        """The last CONNECT stream closed, so all closes of sessions were delivered."""

    def session_request_timed_out(self, connection: Connection) -> None:
        """Server: the client requested no session in time. The connection is about to close."""

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """The peer violated the protocol, and was answered as the specification says."""

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        """The connection closed. The last call, after `session_closed` of its sessions."""


class _PendingRequest(SessionHandler):
    """Handles a request until `ConnectionHandler.session_requested` is called with it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """Report the refused request, unless the whole connection closed."""
        if self._connection.closed is None:
            self._connection.handler.request_refused(session, closed)


@functools.lru_cache(maxsize=16)  # shared by connections with the same limits
def _offer(limits: Limits, is_client: bool) -> tuple[Mapping[int, int], bytes]:
    """The settings to send, and their frame."""
    settings = offered_settings(limits, is_client=is_client)
    return settings, encode_settings(settings)


class Connection:
    """An HTTP/3 connection that carries WebTransport sessions.

    `draft` is the negotiated version, None until the peer's SETTINGS arrive. `closed` says how the
    connection ended, None while it is open.
    """

    __slots__ = (
        *("_control", "_critical", "_deadlines", "_buffered", "_last_request_id"),
        *(
            "_first_frame",
            "_local_settings",
            "_remote_settings",
            "_sessions",
            "_streams",
            "_pending",
        ),
        *("closed", "draft", "draining", "handler", "limits", "quic"),
    )

    def __init__(self, quic: QuicConnection, handler: ConnectionHandler, limits: Limits) -> None:
        self.quic = quic
        self.handler = handler
        self.limits = limits
        self.draft: Draft | None = None
        self.closed: ConnectionClosed | None = None
        self.draining = False
        """Whether GOAWAY was sent or received: no new sessions."""
        self._local_settings, self._first_frame = _offer(limits, quic.is_client)
        self._remote_settings: Mapping[int, int] | None = None
        self._streams: dict[int, Receiver] = {}
        self._sessions: dict[int, Session] = {}
        self._deadlines = Deadlines(quic, limits.header_timeout)
        self._buffered = SessionBuffers(limits)
        self._control = LocalControlStream(quic)
        self._critical = CriticalStreams(limits.max_settings, is_client=quic.is_client)
        self._last_request_id = -4
        self._pending: dict[Session, Headers] = {}
        """Requests that arrived before the client's SETTINGS (draft-16, section 7.1)."""

    # For users.

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Sessions that are requested or established."""
        return tuple(self._sessions.values())

    @property
    def remote_address(self) -> Address:
        """The peer's socket address, as last seen."""
        return self.quic.address

    @property
    def has_connect_streams(self) -> bool:
        """Whether a CONNECT stream is still open in either direction, also of a closed session."""
        return any(isinstance(receiver, Session) for receiver in self._streams.values())

    def open_session(self, request: Request, handler: SessionHandler) -> Session:
        """Client: request a session. `handler` gets its events.

        Raises `StateError` before `ConnectionHandler.connection_ready`, after GOAWAY, and for a
        second session without flow control (section 5.1); `ValueError` for an invalid request.
        """
        draft = self.draft
        if not self.quic.is_client or draft is None or self.closed is not None:
            raise StateError("the connection cannot open sessions: it is not ready, or closed")
        if self.draining:
            raise StateError("the server accepts no more sessions on this connection")
        if self._sessions and not draft.flow_control:
            raise StateError("the server allows one session at a time on a connection")
        if not self.quic.can_open_stream(False):
            raise StateError("the server allows no more streams at the moment")
        headers = request_headers(request, draft)
        stream_id = self.quic.open_stream(b"", False)
        session = Session(self, self.quic, stream_id, handler, self.limits)
        self._last_request_id = stream_id
        self._sessions[stream_id] = self._streams[stream_id] = session
        session.send_request(headers, request, draft)
        return session

    def drain(self) -> None:
        """Accept no more sessions, and ask the peer to finish the open ones (section 4.6)."""
        self.draining = True
        if self.closed is None:
            # A client's GOAWAY has a push id. No push was ever allowed, so the first.
            self._control.send_goaway(0 if self.quic.is_client else self._last_request_id + 4)
        for session in self.sessions:
            session.drain()

    def close(self, code: int = ErrorCode.H3_NO_ERROR, reason: str = "") -> None:
        """Close the connection at once. Its sessions end without a close code."""
        if self.closed is None:
            self.quic.close(code, reason)
            self._end(ConnectionClosed(code=code, reason=reason, is_application=True))

    # For the engine (`engine.QuicEvents`).

    def handshake_completed(self) -> None:
        """Send SETTINGS, in the first flight that can carry them."""
        self._streams[self._control.open(self._first_frame)] = self._control
        self._deadlines.begin(SETTINGS)
        if not self.quic.is_client:
            self._deadlines.begin(SESSION, times=2)
        if self.draining:
            self.drain()

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Pass the bytes to the owner of the stream."""
        try:
            receiver = self._streams.get(stream_id)
            if receiver is not None:
                receiver.receive(data, end_stream, arrival)
            elif self._is_peer_initiated(stream_id):
                self._begin_stream(stream_id, data, end_stream, arrival)
        except ProtocolError as error:
            self.fail(error, stream_id)

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None:
        """Pass a reset to the owner of the stream; close a stream that has none."""
        try:
            receiver = self._streams.get(stream_id)
            if receiver is not None:
                receiver.receive_reset(code, final_size)
            elif not stream_id & 2 and self._is_peer_initiated(stream_id):
                self.refuse_stream(stream_id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, True)
        except ProtocolError as error:
            self.fail(error, stream_id)

    def stop_sending_received(self, stream_id: int, code: int) -> None:
        """Pass STOP_SENDING to the owner of the stream, or keep it until the stream has one."""
        receiver = self._streams.get(stream_id)
        try:
            if receiver is not None:
                receiver.receive_stop(code)
            elif self._is_peer_initiated(stream_id) and not self.quic.buffered(stream_id):
                self._await_type(stream_id).receive_stop(code)
            else:
                self.quic.reset_stream(stream_id, code)
        except ProtocolError as error:
            self.fail(error, stream_id)

    def stream_writable(self, stream_id: int) -> None:
        """Notify the stream. Only streams of sessions use `notify_writable`."""
        stream = self._streams.get(stream_id)
        if isinstance(stream, Stream):
            stream.writable()

    def stream_credit_received(self) -> None:
        """Notify all sessions: each may be waiting for a QUIC stream."""
        for session in self.sessions:
            session.handler.credit_received(session)

    def datagram_received(self, data: bytes, arrival: int) -> None:
        """Pass a datagram to the session of its quarter stream ID (RFC 9297, section 2.1)."""
        try:
            if data and data[0] < 0x40:
                quarter_id, start = data[0], 1
            else:
                quarter_id, start = decode_quarter_id(data)
            session = self._sessions.get(quarter_id << 2)
            if session is not None and session.state is State.ESTABLISHED:
                session.handler.datagram_received(session, data[start:], arrival)
            elif self.closed is None and self._may_be_established(quarter_id << 2):
                self._buffered.add_datagram(quarter_id << 2, data[start:])
                self._deadlines.begin(DATAGRAMS)
        except ConnectionProtocolError as error:
            self.fail(error, -1)

    def buffered_bytes(self) -> int:
        """Bytes that are buffered here, and by the handlers of sessions and streams."""
        kept = (one for one in self._streams.values() if isinstance(one, Stream | Session))
        return self._buffered.size + sum(one.buffered_bytes for one in kept)

    def deadline_passed(self, now: float) -> None:
        """Fail what the peer began and did not complete: a stream, or the connection."""
        for awaited in self._deadlines.take_overdue(now):
            receiver = self._streams.get(awaited)
            if awaited == DATAGRAMS:
                is_pending = self._buffered.drop_datagrams(self._sessions)
            elif awaited == SESSION:
                is_pending = self._check_session_deadline()
            else:
                is_pending = (
                    isinstance(receiver, BufferedStream) and receiver.session_id in self._sessions
                )
                if not is_pending:
                    names_session = isinstance(receiver, BufferedStream)
                    self.fail(timeout_error(awaited, names_session=names_session), awaited)
            if is_pending:
                self._deadlines.begin(awaited, now)

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None:
        """End all sessions, and call the handler for the last time."""
        if self.closed is None:
            self._end(ConnectionClosed(code, reason, by_peer, is_application, timed_out))

    # For the control stream.

    def settings_received(self, settings: Mapping[int, int]) -> None:
        """Choose the draft, and process the requests that waited for SETTINGS."""
        size = self.quic.max_datagram_size
        check_settings(settings, max_datagram_size=size)
        self._remote_settings = settings
        self._deadlines.end(SETTINGS)
        if self.quic.is_client:
            try:
                self.draft = client_draft(self._local_settings, settings, max_datagram_size=size)
            except NoWebTransportError as error:
                self.close(ErrorCode.WT_REQUIREMENTS_NOT_MET, str(error))
                return
        self.handler.connection_ready(self)
        pending, self._pending = self._pending, {}
        for session, headers in pending.items():
            if session.state is State.PENDING and self.closed is None:
                try:
                    self._process_request(session, headers, settings)
                except ProtocolError as error:
                    self.fail(error, session.id)
                session.request_processed()

    def goaway_received(self, identifier: int) -> None:
        """Stop opening sessions. The server did not process those from `identifier` on."""
        self.draining = True
        for session in self.sessions:
            if self.quic.is_client and session.id >= identifier:
                session.refuse("the server accepts no more sessions here", by_peer=True)
            else:
                session.peer_draining()

    # For streams and sessions.

    def request_received(self, session: Session, headers: Headers) -> None:
        """Server: process a complete request, or queue it until the client's SETTINGS arrive."""
        self._deadlines.end(session.id)
        if self._remote_settings is None:
            self._pending[session] = headers
        else:
            self._process_request(session, headers, self._remote_settings)

    def session_established(self, session: Session) -> None:
        """Deliver the streams and datagrams that were buffered for the session."""
        if self.draining and self.quic.is_client:
            session.peer_draining()
        self._deadlines.end(SESSION)
        streams, datagrams = self._buffered.take(session.id)
        for buffered in streams:
            try:
                stream = self._deliver_stream(
                    session, buffered.id, buffered.header_size, buffered.is_receive_closed
                )
                if stream is not None:
                    buffered.deliver(stream, self.quic.arrival)
            except ProtocolError as error:
                self.fail(error, buffered.id)
        for datagram in datagrams:
            if session.state is State.ESTABLISHED:
                session.handler.datagram_received(session, datagram, self.quic.arrival)

    def add_stream(self, stream: Stream) -> None:
        """Route a session's stream."""
        self._streams[stream.id] = stream

    def stream_closed(self, stream_id: int) -> None:
        """Forget a session's stream."""
        self._streams.pop(stream_id, None)

    def session_closed(self, session: Session) -> None:
        """Forget a closed session. Its CONNECT stream may still be open."""
        self._sessions.pop(session.id, None)
        self._pending.pop(session, None)
        self._deadlines.end(session.id)
        if self.closed is None and not self._sessions and not self.quic.is_client:
            self._deadlines.begin(SESSION, times=2)
        self._drop_buffered(session.id, ErrorCode.WT_SESSION_GONE)

    def connect_stream_closed(self, session: Session) -> None:
        """Forget a CONNECT stream."""
        if self._streams.pop(session.id, None) is not None and not self.has_connect_streams:
            self.handler.connect_streams_closed(self)

    def refuse_stream(self, stream_id: int, code: ErrorCode, ended: bool) -> None:
        """Close both directions of a peer's stream that will have no session."""
        self._deadlines.end(stream_id)
        self._buffered.forget_stream(stream_id)
        if ended:
            self._streams.pop(stream_id, None)
        else:
            self._streams[stream_id] = DiscardedStream(self._streams, stream_id)
            self.quic.stop_sending(stream_id, code)
        if not stream_id & 2:
            self.quic.reset_stream(stream_id, code)
            # Streams and datagrams may be buffered for the session that it could have become.
            self._drop_buffered(stream_id, ErrorCode.WT_BUFFERED_STREAM_REJECTED)

    # The rest.

    def _is_peer_initiated(self, stream_id: int) -> bool:
        """Whether the peer initiated a stream, on a connection that is open."""
        return (stream_id & 1 != 0) == self.quic.is_client and self.closed is None

    def _check_session_deadline(self) -> bool:
        if not self._sessions and self._control.goaway_sent:
            self.handler.session_request_timed_out(self)
            self.close(ErrorCode.H3_NO_ERROR, "no session in time")
        elif not self._sessions:
            # A request may be in flight. It is refused, and the client can retry on a new
            # connection.
            self.drain()
        return self.closed is None

    def _drop_buffered(self, session_id: int, code: ErrorCode) -> None:
        for buffered in self._buffered.take(session_id)[0]:
            self.refuse_stream(buffered.id, code, buffered.is_receive_closed)

    def _deliver_stream(
        self, session: Session, stream_id: int, header_size: int, is_receive_closed: bool
    ) -> Stream | None:
        """Pass a peer's stream to its session; None if the session closed meanwhile."""
        self._deadlines.end(stream_id)
        if session.state is State.ESTABLISHED:
            try:
                return session.receive_stream(stream_id, header_size)
            except ProtocolError as error:
                self.fail(error, session.id)
        self.refuse_stream(stream_id, ErrorCode.WT_SESSION_GONE, is_receive_closed)
        return None

    def _begin_stream(self, stream_id: int, data: bytes, end_stream: bool, arrival: int) -> None:
        """Determine the type of a new stream of the peer from its first bytes.

        Raises `ProtocolError` for a type that the peer may not open.
        """
        if data[:2] == _SESSION_STREAM and not stream_id & 2:
            self._begin_session_stream(stream_id, data, 2, end_stream, arrival)
            return
        kind = decode_varint(data)
        if kind is None:
            self._await_more(stream_id, data, end_stream)
        elif stream_id & 2:
            if kind[0] == StreamType.WEBTRANSPORT:
                self._begin_session_stream(stream_id, data, kind[1], end_stream, arrival)
            else:
                self._begin_http_stream(stream_id, kind[0], data[kind[1] :], end_stream, arrival)
        elif kind[0] == FrameType.WT_STREAM:
            # In more bytes than it needs.
            self._begin_session_stream(stream_id, data, kind[1], end_stream, arrival)
        elif self.quic.is_client:
            reason = "a server's bidirectional stream without 0x41"
            raise ConnectionProtocolError(ErrorCode.H3_STREAM_CREATION_ERROR, reason)
        else:
            self._last_request_id = max(self._last_request_id, stream_id)
            session = Session(self, self.quic, stream_id, _PendingRequest(self), self.limits)
            self._streams[stream_id] = session
            session.receive(data, end_stream, arrival)
            if session.state is State.EXPECTED and stream_id in self._streams:
                self._deadlines.begin(stream_id)

    def _await_type(self, stream_id: int, data: bytes = b"") -> UntypedStream:
        """Wait for the bytes that say the stream's type."""
        preface = UntypedStream(self.quic, self._begin_typed, self.refuse_stream, stream_id, data)
        self._streams[stream_id] = preface
        self._deadlines.begin(stream_id)
        return preface

    def _begin_typed(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> Receiver | None:
        self._begin_stream(stream_id, data, end_stream, arrival)
        return self._streams.get(stream_id)

    def _await_more(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        if not end_stream:
            if stream_id not in self._streams:
                self._await_type(stream_id, data)
        elif stream_id & 2:
            # Must be tolerated (RFC 9114, section 6.2).
            self.refuse_stream(stream_id, ErrorCode.H3_STREAM_CREATION_ERROR, True)
        else:
            raise StreamProtocolError(ErrorCode.H3_REQUEST_INCOMPLETE, "FIN before any frame")

    def _begin_session_stream(
        self, stream_id: int, data: bytes, position: int, end_stream: bool, arrival: int
    ) -> None:
        decoded = decode_varint(data, position)
        if decoded is None:
            self._await_more(stream_id, data, end_stream)
            return
        session_id, start = decoded
        session = self._sessions.get(session_id)
        if session is not None and session.state is State.ESTABLISHED:
            stream = self._deliver_stream(session, stream_id, start, end_stream)
            if stream is not None and (start < len(data) or end_stream):
                stream.receive(data[start:], end_stream, arrival)
        elif not self._may_be_established(session_id):
            self.refuse_stream(stream_id, ErrorCode.WT_SESSION_GONE, end_stream)
        else:
            buffered = BufferedStream(
                self._buffered, self.refuse_stream, stream_id, session_id, start
            )
            self._streams[stream_id] = buffered
            if self._buffered.add_stream(buffered):
                self._deadlines.begin(stream_id)
                buffered.receive(data[start:], end_stream, arrival)
            else:
                code = ErrorCode.WT_BUFFERED_STREAM_REJECTED
                self.refuse_stream(stream_id, code, end_stream)

    def _may_be_established(self, session_id: int) -> bool:
        """Whether a session that is not established may still be; false if it closed.

        Raises `ConnectionProtocolError` with H3_ID_ERROR if no session can have the id (draft-16,
        section 4).
        """
        if session_id & 3 or (self.quic.is_client and session_id > self._last_request_id):
            raise ConnectionProtocolError(ErrorCode.H3_ID_ERROR, f"session id {session_id}")
        receiver = self._streams.get(session_id)
        if receiver is None:
            return not self.quic.is_client and not self.quic.is_receive_closed(session_id)
        if isinstance(receiver, Session):
            return receiver.state is not State.CLOSED
        return isinstance(receiver, UntypedStream)

    def _begin_http_stream(
        self, stream_id: int, kind: int, rest: bytes, end_stream: bool, arrival: int
    ) -> None:
        receiver = self._critical.begin(kind, self.settings_received, self.goaway_received)
        if receiver is None:
            self.refuse_stream(stream_id, ErrorCode.H3_STREAM_CREATION_ERROR, end_stream)
            return
        self._deadlines.end(stream_id)
        self._streams[stream_id] = receiver
        receiver.receive(rest, end_stream, arrival)

    def _process_request(
        self, session: Session, headers: Headers, settings: Mapping[int, int]
    ) -> None:
        head = session.read_request(headers, lenient=is_lenient(settings))
        if not head.is_webtransport:
            session.reject(*head.refusal)
            return
        if self._control.goaway_sent:
            # The client sent it before it got GOAWAY, and may retry on a new connection.
            session.draining = True
            session.refuse("the server accepts no more sessions on this connection", by_peer=False)
            return
        if self._sessions and not (self.draft is not None and self.draft.flow_control):
            reason = "a second session without flow control"
            raise StreamProtocolError(ErrorCode.H3_REQUEST_REJECTED, reason)
        if self.draft is None:
            local, size = self._local_settings, self.quic.max_datagram_size
            self.draft = server_draft(local, settings, head.token or b"", max_datagram_size=size)
        if len(self._sessions) >= self.limits.max_sessions:
            session.reject(429)
            return
        self._sessions[session.id] = session
        session.draft = self.draft
        session.handler = SessionHandler()
        self.handler.session_requested(session)

    def fail(self, error: ProtocolError, stream_id: int) -> None:
        """Close the stream, session or connection in which the peer made an error."""
        if self.closed is not None:
            return
        self.handler.protocol_error(self, error)
        receiver = self._streams.get(stream_id)
        if isinstance(error, ConnectionProtocolError):
            self.close(error.code, error.reason)
        elif isinstance(receiver, Session):
            receiver.fail(error)
        elif isinstance(receiver, Stream):
            # The only possible error of a session's stream is to exceed the session's flow
            # control.
            for session in self.sessions:
                if receiver in session.streams:
                    session.fail(error)
        else:
            self.refuse_stream(stream_id, error.code, self.quic.is_receive_closed(stream_id))

    def _end(self, closed: ConnectionClosed) -> None:
        self.closed = closed
        self._deadlines.clear()
        sessions = self.sessions
        streams = [each for each in self._streams.values() if isinstance(each, Stream)]
        for table in (self._streams, self._sessions, self._pending, self._buffered):
            table.clear()
        # Sessions first, then streams, also of closed sessions. All are called even if one raises.
        with ExitStack() as last_first:
            last_first.callback(self._streams.clear)
            last_first.callback(self.handler.connection_closed, self, closed)
            for stream in streams:
                last_first.callback(stream.connection_lost)
            for session in reversed(sessions):
                last_first.callback(session.connection_lost, SessionClosed.from_connection(closed))
