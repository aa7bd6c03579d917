"""WebTransport over HTTP/3 for both roles, without I/O.

    class Echo(SessionHandler):
        def datagram_received(self, session, data, arrival):
            session.send_datagram(data)

    class Server(ConnectionHandler):
        def session_requested(self, session):
            session.accept(Echo())

    connection = Connection(quic, Server(), Limits())

A QUIC engine reports received data to a `Connection`. Connection, sessions and streams call their
handlers, and the engine queues what the handlers send, all in one turn of the event loop. Nothing
here opens a socket, reads a clock or starts a task: `pingpong.webtransport.asyncio` has sockets,
timers and awaitable sessions. Users import from these two packages, never from
the modules in them.

Specification: draft-ietf-webtrans-http3-16 and the drafts before it that are still in
use, RFC 9114 (HTTP/3), RFC 9220 (extended CONNECT), RFC 9297 (HTTP datagrams and
capsules), RFC 9204 (QPACK, static table only).
"""

from .connection import Connection, ConnectionHandler
from .drafts import Credit, Draft, Version
from .errors import (
    DatagramTooLargeError,
    ErrorCode,
    ProtocolError,
    StateError,
    WebTransportError,
)
from .events import ConnectionClosed, Headers, Request, SessionClosed
from .hosts import URL_SAFE, Url, ascii_host, bracketed, is_ipv6, serialize_origin
from .limits import Limits
from .quic.config import EndpointConfig, EngineChoice, KeyLimits, Windows
from .quic.connection_ids import MAX_WORKERS, SharedKeys
from .quic.engine import Address, PathStatistics, QuicConnection
from .session import Session, SessionHandler
from .states import State
from .streams import Stream, StreamHandler
from .text import MASK, mask_url, printable
from .varint import decode as decode_varint
from .varint import encode as encode_varint

__all__ = [
    "MASK",
    "MAX_WORKERS",
    "URL_SAFE",
    "Address",
    "Connection",
    "ConnectionClosed",
    "ConnectionHandler",
    "Credit",
    "DatagramTooLargeError",
    "Draft",
    "EndpointConfig",
    "EngineChoice",
    "ErrorCode",
    "Headers",
    "KeyLimits",
    "Limits",
    "PathStatistics",
    "ProtocolError",
    "QuicConnection",
    "Request",
    "Session",
    "SessionClosed",
    "SessionHandler",
    "SharedKeys",
    "State",
    "StateError",
    "Stream",
    "StreamHandler",
    "Url",
    "Version",
    "WebTransportError",
    "Windows",
    "ascii_host",
    "bracketed",
    "decode_varint",
    "encode_varint",
    "is_ipv6",
    "mask_url",
    "printable",
    "serialize_origin",
]
