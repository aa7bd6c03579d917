"""WebTransport for asyncio: the W3C API's names, in snake case.

    async with connect("https://example.org/chat") as session:
        stream = await session.create_bidirectional_stream()
        await stream.writable.close(b"hello")
        print(await stream.readable.read_all())

    async def handler(session):
        async for data in session.datagrams:
            session.datagrams.send(data)

    async with serve(handler, port=4433, self_signed=True) as server:
        ...

`open_connection` and `listen` are the level below: connections and plain calls, for
those who answer in the turn in which a packet arrives.
"""

from ..certificates import Certificate, CertificateError, make_certificate
from ..drafts import Draft
from ..errors import (
    DatagramTooLargeError,
    SessionClosedError,
    StateError,
    StreamResetError,
    WebTransportError,
)
from ..events import Headers, Request, SessionClosed
from ..limits import Limits
from ..quic.config import EndpointConfig, Engine, EngineChoice, KeyLimits, ServerIdentity, Windows
from ..quic.engine import Address, EndpointCounters
from ..quic.engines import EngineMissingError, check_certificate
from ..quic.engines import choose as choose_engine
from ..quic.engines import lacks as engine_lacks
from ..udp.forwarding import PacketForwarder, create_inboxes
from ..udp.sockets import BufferSize
from ..udp.steering import bind_group, steer
from .connecting import check_authorities, connect, establish, open_connection
from .connection import ClientConnection, SessionWaiter, Timings
from .endpoint import ReceiveBudget
from .failures import Cause, ConnectError, Step
from .opening import Opening
from .race import more_telling
from .server import HANDLER_FAILED, Decision, Listener, Server, listen, read_certificate, serve
from .session import Datagrams, Incoming, Session
from .streams import BidirectionalStream, ReceiveStream, SendStream
from .target import Target, resolve

__all__ = [
    "HANDLER_FAILED",
    "Address",
    "BidirectionalStream",
    "BufferSize",
    "Cause",
    "Certificate",
    "CertificateError",
    "ClientConnection",
    "ConnectError",
    "DatagramTooLargeError",
    "Datagrams",
    "Decision",
    "Draft",
    "EndpointConfig",
    "EndpointCounters",
    "Engine",
    "EngineChoice",
    "EngineMissingError",
    "Headers",
    "Incoming",
    "KeyLimits",
    "Limits",
    "Listener",
    "Opening",
    "PacketForwarder",
    "ReceiveBudget",
    "ReceiveStream",
    "Request",
    "SendStream",
    "Server",
    "ServerIdentity",
    "Session",
    "SessionClosed",
    "SessionClosedError",
    "SessionWaiter",
    "StateError",
    "Step",
    "StreamResetError",
    "Target",
    "Timings",
    "WebTransportError",
    "Windows",
    "bind_group",
    "check_authorities",
    "check_certificate",
    "choose_engine",
    "connect",
    "create_inboxes",
    "engine_lacks",
    "establish",
    "listen",
    "make_certificate",
    "more_telling",
    "open_connection",
    "read_certificate",
    "resolve",
    "serve",
    "steer",
]
