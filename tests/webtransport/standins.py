"""In place of a QUIC engine, for what is about WebTransport alone."""

from __future__ import annotations


class Quic:
    """Takes everything that a connection has to send, and looks at the order of it.

    It stands in for `quic.engine.QuicConnection`; packets, and what a peer acknowledges, are not
    there.
    """

    max_datagram_size = 1200
    reset_stream_at = True
    deadline: float | None = None
    arrival = 0

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self.sent: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.asked: set[int] = set()
        self._next_id = {False: 0 if is_client else 1, True: 2 if is_client else 3}

    def can_open_stream(self, unidirectional: bool) -> bool:
        return True

    def open_stream(self, header: bytes, unidirectional: bool) -> int:
        stream_id = self._next_id[unidirectional]
        self._next_id[unidirectional] += 4
        return stream_id

    def send_stream(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        assert stream_id not in self.ended | self.resets.keys()
        self.sent[stream_id] = self.sent.get(stream_id, b"") + data
        if end_stream:
            self.ended.add(stream_id)

    def send_datagram(self, data: bytes) -> bool:
        return True

    def reset_stream(self, stream_id: int, code: int, reliable_size: int = 0) -> int:
        self.resets.setdefault(stream_id, code)
        return 0

    def stop_sending(self, stream_id: int, code: int) -> None:
        self.stops.setdefault(stream_id, code)

    def buffered(self, stream_id: int) -> int:
        return len(self.sent.get(stream_id, b""))

    def notify_writable(self, stream_id: int, below: int) -> None:
        self.asked.add(stream_id)

    def hold(self, stream_id: int, size: int) -> None:
        self.held[stream_id] = self.held.get(stream_id, 0) + size

    def release(self, stream_id: int, size: int) -> None:
        self.held[stream_id] = self.held.get(stream_id, 0) - size
        assert self.held[stream_id] >= 0

    def is_receive_closed(self, stream_id: int) -> bool:
        return False

    def close(self, code: int, reason: str = "") -> None:
        pass
