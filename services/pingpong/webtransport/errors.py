"""Exceptions, wire error codes, and the mapping between the two code spaces.

    WebTransportError
    ├── ProtocolError the peer violated the protocol; has a wire code
    │   ├── ConnectionProtocolError   ends the connection: CONNECTION_CLOSE
    │   ├── SessionProtocolError      ends one session: its CONNECT stream is reset
    │   └── StreamProtocolError       ends one stream
    ├── SessionClosedError       the session is gone; says how it ended
    ├── StreamResetError         the peer ended a stream early
    ├── DatagramTooLargeError    does not fit in one packet
    └── StateError               the caller asked for what cannot be done now

A protocol error has the code that the specification names. `connection.Connection.fail` turns it
into a frame.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from .text import printable


class ErrorCode(IntEnum):
    """HTTP/3 (RFC 9114, section 8.1), QPACK, datagram and WebTransport error codes."""

    H3_DATAGRAM_ERROR = 0x33
    H3_NO_ERROR = 0x100
    H3_GENERAL_PROTOCOL_ERROR = 0x101
    H3_INTERNAL_ERROR = 0x102
    H3_STREAM_CREATION_ERROR = 0x103
    H3_CLOSED_CRITICAL_STREAM = 0x104
    H3_FRAME_UNEXPECTED = 0x105
    H3_FRAME_ERROR = 0x106
    H3_EXCESSIVE_LOAD = 0x107
    H3_ID_ERROR = 0x108
    H3_SETTINGS_ERROR = 0x109
    H3_MISSING_SETTINGS = 0x10A
    H3_REQUEST_REJECTED = 0x10B
    H3_REQUEST_CANCELLED = 0x10C
    H3_REQUEST_INCOMPLETE = 0x10D
    H3_MESSAGE_ERROR = 0x10E
    H3_CONNECT_ERROR = 0x10F
    H3_VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202
    WT_FLOW_CONTROL_ERROR = 0x045D4487
    WT_ALPN_ERROR = 0x0817B3DD
    WT_SESSION_GONE = 0x170D7B68
    WT_REQUIREMENTS_NOT_MET = 0x212C0D48
    WT_BUFFERED_STREAM_REJECTED = 0x3994BD84


def error_name(code: int) -> str:
    """The name of an HTTP/3 or WebTransport wire code; hex if it has none."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


class WebTransportError(Exception):
    """Base class of this package's exceptions."""

    def again(self) -> Self:
        """A copy without a traceback, for an object that stores the error and raises it later.

        A traceback refers to its frames, and so often to the object itself: a reference cycle.
        """
        made = type(self).__new__(type(self), *self.args)
        vars(made).update(vars(self))
        return made


class ProtocolError(WebTransportError):
    """The peer violated the protocol. `code` is the wire code that answers it."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        reason = printable(reason)  # it may contain text of the peer
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class ConnectionProtocolError(ProtocolError):
    """A connection error: the connection is closed with `code`."""


class SessionProtocolError(ProtocolError):
    """A session error: the CONNECT stream is reset with `code`."""


class StreamProtocolError(ProtocolError):
    """A stream error: the stream is reset, and STOP_SENDING sent, with `code`."""


class SessionClosedError(WebTransportError):
    """The session, or its connection, is closed.

    `code` and `reason` are those of the session's close. `code` is None if it had none (a reset, a
    lost connection).
    """

    def __init__(self, message: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class StreamResetError(WebTransportError):
    """The peer reset a stream, or sent STOP_SENDING.

    `code` is the application's 32-bit code, or None if the wire code was outside the range of
    WT_APPLICATION_ERROR (draft-16, section 4.4).
    """

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class DatagramTooLargeError(WebTransportError):
    """The datagram does not fit in one packet, or the peer accepts none. `limit` is in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a datagram of {size} bytes does not fit: at most {limit}")
        self.size = size
        self.limit = limit


class StateError(WebTransportError):
    """The call is not allowed in this state, such as a write after the end of a stream."""


FIRST_APPLICATION_ERROR = 0x52E4A40FA8DB
LAST_APPLICATION_ERROR = 0x52E5AC983162


def to_http3_code(code: int) -> int:
    """Map an application's 32-bit stream error code into HTTP/3's code space.

    Draft-16, section 4.4: code points of the form 0x1f * N + 0x21 are reserved for greasing and
    skipped. Raises `ValueError` if `code` does not fit in 32 bits.
    """
    if not 0 <= code <= 0xFFFF_FFFF:
        raise ValueError(f"an application error code has 32 bits: {code}")
    return FIRST_APPLICATION_ERROR + code + code // 0x1E


def from_http3_code(code: int) -> int | None:
    """Map a wire code to an application's stream error code; None if it is none."""
    if not FIRST_APPLICATION_ERROR <= code <= LAST_APPLICATION_ERROR:
        return None
    if (code - 0x21) % 0x1F == 0:
        return None
    shifted = code - FIRST_APPLICATION_ERROR
    return shifted - shifted // 0x1F
