"""One session, from the request to its close (draft-16, sections 3.2 to 6).

The state machine is a table in `states`.

A session calls its `SessionHandler` in the turn in which a packet arrived, so that an answer can
leave in the same turn. `session_closed` is always called, once, as the last call. An exception of
a handler closes the connection with H3_INTERNAL_ERROR.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

from .capsules import CapsuleType, decode_close, encode_capsule, encode_close
from .connect_stream import ConnectStream
from .drafts import Draft, Version
from .errors import (
    DatagramTooLargeError,
    ErrorCode,
    ProtocolError,
    SessionProtocolError,
    StateError,
    StreamProtocolError,
    error_name,
)
from .events import Headers, Request, SessionClosed
from .flow import FlowControl
from .http3.frames import FrameType, decode_headers, encode_headers
from .http3.messages import RequestHead, parse_request, parse_response, response_headers
from .limits import Limits
from .quic.engine import Address, PathStatistics, QuicConnection
from .states import CLIENT, SERVER, STOP_CODES, Event, State, after
from .streams import Stream, StreamHandler, encode_stream_header
from .varint import encode as encode_varint

_NO_HANDLER = StreamHandler()
_PROHIBITED = (CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED)
"""QUIC has flow control of streams: over HTTP/3 these are always an error (section 5.4)."""
_MAX_BUFFERED_CAPSULES = 16 << 10
"""Bytes of a CONNECT stream that are buffered until the request is accepted."""


class SessionHandler:
    """Callbacks of a session; no-ops by default."""

    __slots__ = ()

    def session_established(self, session: Session) -> None:
        """The server accepted the session. Streams and datagrams can be sent both ways."""

    def session_draining(self, session: Session) -> None:
        """The peer asks to finish and close, by WT_DRAIN_SESSION or GOAWAY (section 4.6)."""

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """The session closed, and all its streams with it. The last call.

        Streams that were open are still in `session.streams`; they close right after.
        """

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        """A datagram arrived.

        `arrival` is the kernel's receive time of its packet, in nanoseconds of the monotonic
        clock.
        """

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """The peer opened a stream. Returns the handler of the stream.

        By default the stream is rejected with code 0.
        """
        stream.stop()
        stream.reset()
        return StreamHandler()

    def credit_received(self, session: Session) -> None:
        """The peer raised a stream limit. Check `can_open_stream` again."""


_CLOSED_HANDLER = SessionHandler()


class SessionOwner(Protocol):
    """What a session needs from its connection."""

    def request_received(self, session: Session, headers: Headers) -> None:
        """Server: the HEADERS of the request arrived."""

    def session_established(self, session: Session) -> None:
        """The handler was called. Buffered streams and datagrams can be delivered."""

    def session_closed(self, session: Session) -> None:
        """The session closed. Its CONNECT stream may still be open."""

    def connect_stream_closed(self, session: Session) -> None:
        """The CONNECT stream closed in both directions."""

    def add_stream(self, stream: Stream) -> None:
        """The session has a new stream."""

    def stream_closed(self, stream_id: int) -> None:
        """A stream of the session closed in both directions."""

    def fail(self, error: ProtocolError, stream_id: int) -> None:
        """Answer an error of the peer by closing the stream, session or connection with its
        code."""


@functools.lru_cache(maxsize=16)  # an application has few protocols
def _acceptance(version: Version, protocol: str | None) -> bytes:
    """The HEADERS frame of a response that accepts a session."""
    return encode_headers(response_headers(200, version=version, protocol=protocol))


class Session:
    """A session of a connection. Only `Connection` creates it.

    `id` is the id of the CONNECT stream. `draft` is the negotiated version. `protocol` is the
    negotiated application protocol, or None. `context` is for the handler's use.
    """

    __slots__ = (
        *("_connect", "_datagram_prefix", "_buffered", "_limits", "_owner", "_quic", "_table"),
        *("context", "draft", "draining", "flow", "handler", "id", "handler_buffered", "protocol"),
        *("request", "state", "streams"),
    )

    def __init__(
        self,
        owner: SessionOwner,
        quic: QuicConnection,
        session_id: int,
        handler: SessionHandler,
        limits: Limits,
    ) -> None:
        self.id = session_id
        self.handler = handler
        self.context: Any = None
        self.state = State.EXPECTED
        self.request = Request(authority="", path="")
        self.protocol: str | None = None
        self.draining = False
        """Whether either side asked to drain."""
        self.streams: set[Stream] = set()
        self.handler_buffered = 0
        """Bytes that the handler buffers, apart from any stream. The handler sets it."""
        self.flow: FlowControl | None = None
        """Session flow control; None unless both sides enabled it."""
        self.draft = Draft(Version.DRAFT_16)
        """The negotiated version. A server knows it from `session_requested` on."""
        self._owner = owner
        self._quic = quic
        self._table = CLIENT if quic.is_client else SERVER
        self._limits = limits
        self._connect = ConnectStream(quic, session_id, limits.max_field_section)
        self._datagram_prefix = encode_varint(session_id >> 2)
        self._buffered = b""

    # For users.

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest datagram that can be sent; 0 if the peer accepts none."""
        return max(0, self._quic.max_datagram_size - len(self._datagram_prefix))

    @property
    def remote_address(self) -> Address:
        """The peer's socket address, as last seen."""
        return self._quic.address

    @property
    def duplicate_packets(self) -> int:
        """Packets of the connection that the network duplicated."""
        return self._quic.duplicate_packets

    @property
    def path_statistics(self) -> PathStatistics | None:
        """QUIC's statistics of the path; None before a round trip was measured."""
        return self._quic.path_statistics

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are buffered of the CONNECT stream, and by the handler."""
        return self.handler_buffered + len(self._buffered) + self._connect.buffered_bytes

    def accept(self, handler: SessionHandler, protocol: str | None = None) -> None:
        """Accept a request with status 200. Buffered streams and datagrams are delivered at once.

        `protocol` must be one of `request.protocols`, or None. Raises `StateError` if the session
        is not a pending request, `ValueError` for another protocol. The session may be closed when
        this returns, if its close was buffered.
        """
        established = self._after(Event.ACCEPT)
        if protocol is not None and protocol not in self.request.protocols:
            raise ValueError(f"the client does not offer the protocol {protocol!r}")
        self.state = established
        self.protocol = protocol
        self._connect.send_frame(_acceptance(self.draft.version, protocol))
        try:
            self._establish(handler)
        except ProtocolError as error:
            self._owner.fail(error, self.id)

    def reject(self, status: int, headers: Headers = ()) -> None:
        """Reject a request with an HTTP status that is not 2xx.

        Raises `StateError` if the session is not a pending request.
        """
        self._after(Event.REJECT)
        self._connect.send_headers([*response_headers(status), *headers], end_stream=True)
        self._close(SessionClosed(by_peer=False, error=f"rejected: {status}", status=status))

    def send_datagram(self, data: bytes) -> bool:
        """Send a datagram. Returns False if it was dropped because the send queue is full.

        Raises `DatagramTooLargeError` if it does not fit in a packet or the peer accepts none, and
        `StateError` if the session is not established.
        """
        # The path of each ping: the table is used only for the error.
        if self.state is not State.ESTABLISHED:
            self._after(Event.SEND_DATAGRAM)
        prefix = self._datagram_prefix
        if len(data) + len(prefix) > self._quic.max_datagram_size:
            raise DatagramTooLargeError(len(data), self.max_datagram_size)
        return self._connect.send_open and self._quic.send_datagram(prefix + data)

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's stream limits, of the session and of QUIC, allow one more stream."""
        # After STOP_SENDING on the CONNECT stream the session is about to close.
        if self.state is not State.ESTABLISHED or not self._connect.send_open:
            return False
        if self.flow is not None and not self.flow.can_open_stream(unidirectional):
            return False
        return self._quic.can_open_stream(unidirectional)

    def open_stream(self, handler: StreamHandler, *, unidirectional: bool = False) -> Stream:
        """Open a stream.

        Raises `StateError` if the session is not established, or `can_open_stream` is false.
        """
        self._after(Event.OPEN_STREAM)
        if not self.can_open_stream(unidirectional):
            raise StateError("the peer allows no more streams at the moment")
        if self.flow is not None:
            self.flow.streams_out[unidirectional].take(1)
        header = encode_stream_header(self.id, unidirectional)
        stream_id = self._quic.open_stream(header, unidirectional)
        return self._add_stream(stream_id, handler, is_local=True, header_size=len(header))

    def drain(self) -> None:
        """Ask the peer to finish and close (WT_DRAIN_SESSION). The session stays open."""
        if self.state is State.ESTABLISHED and not self.draining:
            self.draining = True
            self._connect.send_capsule(encode_capsule(CapsuleType.WT_DRAIN_SESSION))

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the session with a 32-bit application code and a reason.

        Sends WT_CLOSE_SESSION and FIN. There is no STOP_SENDING, which could arrive first and hide
        the code. Does nothing if the session is closed, and cancels a session that is only
        requested. A reason is truncated to 1024 bytes. Raises `ValueError` for a code of more than
        32 bits.
        """
        if not 0 <= code <= 0xFFFF_FFFF:
            raise ValueError(f"a close code has 32 bits: {code}")
        if self.state is State.ESTABLISHED:
            self._connect.send_capsule(encode_close(code, reason), end_stream=True)
        elif self.state is not State.CLOSED:
            self._connect.abort(ErrorCode.H3_REQUEST_CANCELLED)
        self._close(SessionClosed(code=code, reason=reason, by_peer=False))

    # For the connection.

    def send_request(self, headers: Headers, request: Request, draft: Draft) -> None:
        """Client: send the CONNECT."""
        self.request = request
        self.draft = draft
        self.state = self._after(Event.SEND_REQUEST)
        self._connect.send_headers(headers)

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Process the next bytes of the CONNECT stream."""
        for kind, payload in self._connect.receive(data, end_stream):
            if kind == FrameType.HEADERS:
                self._receive_headers(payload)
            else:
                self._receive_data(payload, arrival)
        if end_stream:
            self._receive_end()
        self._forget_if_closed()

    def read_request(self, headers: Headers, *, lenient: bool) -> RequestHead:
        """Server: parse the request, once the client's SETTINGS arrived.

        Raises as `messages.parse_request` does.
        """
        self.state = self._after(Event.SETTINGS)
        head = parse_request(headers, lenient=lenient)
        self.request = head.request
        return head

    def request_processed(self) -> None:
        """Server: a request that waited for the client's SETTINGS was processed."""
        if not self._connect.receive_open:
            self._receive_end()
        self._forget_if_closed()

    def refuse(self, reason: str, *, by_peer: bool) -> None:
        """Cancel a request that was not processed (RFC 9114, section 4.1.1)."""
        code = ErrorCode.H3_REQUEST_REJECTED
        # H3_REQUEST_REJECTED is for servers only.
        self._connect.abort(ErrorCode.H3_REQUEST_CANCELLED if self._quic.is_client else code)
        self._close(SessionClosed(by_peer=by_peer, error=reason, wire_code=code))
        self._forget_if_closed()

    def receive_reset(self, code: int, final_size: int) -> None:
        """The peer reset the CONNECT stream: the session closes."""
        self._connect.receive_open = False
        if self._connect.send_open:
            self._connect.reset(ErrorCode.WT_SESSION_GONE)
        self._close(
            SessionClosed(error=f"the peer reset the session: {error_name(code)}", wire_code=code)
        )
        self._forget_if_closed()

    def receive_stop(self, code: int) -> None:
        """The peer sent STOP_SENDING on the CONNECT stream.

        The session closes, except for the codes of `states.STOP_CODES`. If it is closed already,
        data in flight may still arrive, with the close code and reason.
        """
        self._connect.reset(code)
        if self.state is not State.CLOSED and code != STOP_CODES.get(self.state):
            self._connect.stop(ErrorCode.WT_SESSION_GONE)
            self._close(
                SessionClosed(
                    error=f"the peer stopped reading the session: {error_name(code)}",
                    wire_code=code,
                )
            )
        self._forget_if_closed()

    def fail(self, error: ProtocolError) -> None:
        """Close the session after an error of the peer: reset its CONNECT stream."""
        self._connect.abort(error.code)
        self._close(SessionClosed(by_peer=False, error=str(error), wire_code=error.code))
        self._forget_if_closed()

    def connection_lost(self, closed: SessionClosed) -> None:
        """The connection closed."""
        self._connect.send_open = False
        self._close(closed)

    def peer_draining(self) -> None:
        """The peer sent WT_DRAIN_SESSION, or GOAWAY on the connection."""
        if self.state is State.ESTABLISHED and not self.draining:
            self.draining = True
            self.handler.session_draining(self)

    def receive_stream(self, stream_id: int, header_size: int) -> Stream:
        """The peer opened a stream of this session."""
        if self.flow is not None:
            self.flow.streams_in[bool(stream_id & 2)].receive(1)
        stream = self._add_stream(stream_id, _NO_HANDLER, is_local=False, header_size=header_size)
        handler = self.handler.stream_opened(stream)
        if self.state is State.ESTABLISHED:
            stream.handler = handler
        return stream

    # For streams.

    def stream_closed(self, stream: Stream) -> None:
        """A stream closed in both directions, and its data was read. May be called twice."""
        if stream not in self.streams:
            return
        self.streams.remove(stream)
        stream.handler = _NO_HANDLER
        self._owner.stream_closed(stream.id)
        if self.flow is not None and not stream.is_local:
            self.flow.peer_stream_closed(stream.is_unidirectional)

    def _add_stream(
        self, stream_id: int, handler: StreamHandler, *, is_local: bool, header_size: int
    ) -> Stream:
        stream = Stream(
            self._quic,
            stream_id,
            handler,
            flow=self.flow,
            on_closed=self.stream_closed,
            is_local=is_local,
            header_size=header_size,
        )
        self.streams.add(stream)
        self._owner.add_stream(stream)
        return stream

    # The CONNECT stream.

    def _receive_headers(self, payload: bytes) -> None:
        headers = decode_headers(payload, self._limits.max_field_section)
        before, self.state = self.state, self._after(Event.HEADERS)
        if before is State.EXPECTED:
            self._owner.request_received(self, headers)
        elif before is State.REQUESTED:
            self._receive_response(headers)

    def _receive_response(self, headers: Headers) -> None:
        response = parse_response(headers, lenient=self.draft.lenient)
        if response.status < 200:
            if response.status == 101:
                raise StreamProtocolError(ErrorCode.H3_MESSAGE_ERROR, "status 101 over HTTP/3")
            return
        if response.status >= 300:
            self._connect.end()
            # The body is not read.
            self._connect.stop(ErrorCode.H3_REQUEST_CANCELLED)
            self._close(
                SessionClosed(
                    error=f"the server answered {response.status}", status=response.status
                )
            )
            return
        if response.protocol is not None and response.protocol not in self.request.protocols:
            if self.request.protocols:
                raise SessionProtocolError(
                    ErrorCode.WT_ALPN_ERROR,
                    f"the server chose {response.protocol!r}, which was not offered",
                )
        else:
            self.protocol = response.protocol
        self.state = self._after(Event.ACCEPTED)
        self._establish(self.handler)

    def _establish(self, handler: SessionHandler) -> None:
        draft = self.draft
        self.handler = handler
        if draft.bare_capsules:
            self._connect.use_bare_capsules()
        if draft.flow_control:
            self.flow = FlowControl(self._limits, draft.granted, self._connect.send_capsule)
        handler.session_established(self)
        self._owner.session_established(self)
        buffered, self._buffered = self._buffered, b""
        if buffered:
            self._receive_data(buffered, self._quic.arrival)

    def _receive_data(self, payload: bytes, arrival: int) -> None:
        """Process capsules, the payload of DATA frames."""
        self._after(Event.DATA)
        if self.state is State.ESTABLISHED:
            for kind, value in self._connect.capsules(payload):
                if self.state is State.ESTABLISHED:
                    self._receive_capsule(kind, value, arrival)
        elif self.state is not State.CLOSED:
            # Capsules are valid only after the session is accepted (section 3.2).
            self._buffered += payload
            if len(self._buffered) > _MAX_BUFFERED_CAPSULES:
                raise SessionProtocolError(ErrorCode.H3_EXCESSIVE_LOAD, "capsules before 2xx")

    def _receive_capsule(self, kind: CapsuleType, value: bytes, arrival: int) -> None:
        if kind is CapsuleType.WT_CLOSE_SESSION:
            code, reason = decode_close(value)
            self._connect.end()
            self._close(SessionClosed(code=code, reason=reason))
        elif kind is CapsuleType.WT_DRAIN_SESSION:
            self.peer_draining()
        elif kind is CapsuleType.DATAGRAM:
            self.handler.datagram_received(self, value, arrival)
        elif kind in _PROHIBITED:
            raise SessionProtocolError(ErrorCode.WT_FLOW_CONTROL_ERROR, f"{kind.name} over HTTP/3")
        elif (
            # Flow control capsules are ignored unless both sides enabled it (section 5.1).
            self.flow is not None
            and not self.draft.bare_capsules
            and self.flow.receive(kind, value)
        ):
            self.handler.credit_received(self)

    def _receive_end(self) -> None:
        if self._after(Event.FIN) is self.state:
            return
        if self.state is State.ESTABLISHED:
            self._connect.end()
            self._close(SessionClosed(code=0, reason=""))
        else:
            if self._connect.send_open:
                self._connect.reset(ErrorCode.H3_REQUEST_CANCELLED)
            self._close(SessionClosed(error="the peer ended the request before it was answered"))

    def _after(self, event: Event) -> State:
        return after(self._table, self.state, event)

    def _close(self, closed: SessionClosed) -> None:
        """Enter CLOSED, once: forget the session, call the handler, close all streams.

        The handler is called before, so that it finds the open streams in `streams`.
        """
        following = self._after(Event.END)
        if following is self.state:
            return
        self.state = following
        self._buffered = b""
        if self.flow is not None:
            self.flow.session_closed()
        handler, self.handler = self.handler, _CLOSED_HANDLER
        self._owner.session_closed(self)
        try:
            handler.session_closed(self, closed)
        finally:
            for stream in list(self.streams):
                stream.abandon(ErrorCode.WT_SESSION_GONE)

    def _forget_if_closed(self) -> None:
        if not self._connect.send_open and not self._connect.receive_open:
            self._owner.connect_stream_closed(self)
