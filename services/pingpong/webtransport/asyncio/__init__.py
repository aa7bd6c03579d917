"""WebTransport for asyncio: the W3C API's names, in snake case.

    async with await connect("https://example.org/chat") as session:
        stream = await session.create_bidirectional_stream()
        await stream.writable.close(b"hello")
        print(await stream.readable.read_all())

`open_connection` and `listen` are the level below: connections and plain calls, for
those who answer in the turn in which a packet arrives.
"""

from ..drafts import Draft
from ..errors import (
    DatagramTooLargeError,
    SessionClosedError,
    StateError,
    StreamResetError,
    WebTransportError,
)
from ..events import Request, SessionClosed
from ..limits import Limits
from ..quic.config import EndpointConfig, Windows
from ..udp.forwarding import PacketForwarder, create_inboxes
from ..udp.steering import bind_group, steer
from .connecting import connect, establish, open_connection
from .connection import ClientConnection, SessionWaiter
from .endpoint import CatchUp
from .failures import Cause, ConnectError
from .race import more_telling
from .server import Listener, Server, listen, serve
from .session import Session
from .streams import BidirectionalStream, ReceiveStream, SendStream
from .target import Target, resolve

__all__ = [
    "BidirectionalStream",
    "CatchUp",
    "Cause",
    "ClientConnection",
    "ConnectError",
    "DatagramTooLargeError",
    "Draft",
    "EndpointConfig",
    "Limits",
    "Listener",
    "PacketForwarder",
    "ReceiveStream",
    "Request",
    "SendStream",
    "Server",
    "Session",
    "SessionClosed",
    "SessionClosedError",
    "SessionWaiter",
    "StateError",
    "StreamResetError",
    "Target",
    "WebTransportError",
    "Windows",
    "bind_group",
    "connect",
    "create_inboxes",
    "establish",
    "listen",
    "more_telling",
    "open_connection",
    "resolve",
    "serve",
    "steer",
]
