"""A client of the server's handlers: what it asked, what it got, and what was counted."""

from __future__ import annotations

from pingpong.ping import PROTOCOL, Deframer, Pong, decode_pong
from pingpong.server.sessions.counters import MessageCounters
from pingpong.server.sessions.handlers import Router
from pingpong.webtransport.session import Session
from pingpong.webtransport.streams import Stream
from tests.webtransport.wire import Recorder, Wire

MAX_SIZE = 1000


class Asking:
    """A client with a session on a server that answers."""

    def __init__(
        self,
        path: str = "/ping",
        *,
        v1: bool = False,
        wire: Wire | None = None,
        max_size: int = MAX_SIZE,
        rate_limit: int = 0,
    ) -> None:
        self.wire = wire or Wire()
        self.router = Router(max_size, rate_limit=rate_limit)
        self.wire.server.decide = self.router.session_requested
        self.session: Session
        self.told: Recorder
        self.session, self.told = self.wire.session(path=path, protocols=(PROTOCOL,) if v1 else ())

    @property
    def counters(self) -> MessageCounters:
        return self.router.counters

    def open(self, *parts: bytes, uni: bool = False, end: bool = False) -> Stream:
        """Open a stream and send these bytes, each part in packets of its own."""
        stream = self.session.open_stream(self.told, unidirectional=uni)
        for part in parts:
            stream.send(part)
            self.wire.run()
        if end:
            stream.send(b"", True)
        self.wire.run()
        return stream

    def datagrams(self, *datagrams: bytes) -> list[bytes]:
        """Send datagrams, and return those that come back."""
        before = len(self.told.datagrams)
        for data in datagrams:
            assert self.session.send_datagram(data)
        self.wire.run()
        return self.told.datagrams[before:]

    def pongs(self, stream: Stream) -> list[Pong | None]:
        return [decode_pong(m) for m in Deframer(1 << 20).feed(self.told.data[stream.id])]

    def uni_answers(self) -> list[bytes]:
        """What came on unidirectional streams, each ended."""
        opened = [stream.id for stream in self.told.opened]
        assert all(stream.is_unidirectional for stream in self.told.opened)
        return [self.told.data.get(one, b"") for one in opened if one in self.told.ended]

    def assert_counts(
        self,
        received: dict[str, int],
        answered: dict[str, int] | None = None,
        **dropped: dict[str, int],
    ) -> None:
        counters = self.counters
        assert _some(counters.received) == received
        assert _some(counters.answered) == (received if answered is None else answered)
        flat = {(mode, why): n for mode, reasons in dropped.items() for why, n in reasons.items()}
        assert dict(counters.dropped) == flat


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {mode: count for mode, count in counts.items() if count}
