"""A session's flow control accounts, and the capsules that change them (draft-16, section 5)."""

from __future__ import annotations

from .capsules import CapsuleType, decode_limit, encode_limit
from .drafts import Credit
from .errors import ErrorCode, SessionProtocolError
from .flow import ReceiveCredit, SendCredit, check_stream_limit
from .limits import Limits

_MAX_STREAMS = (CapsuleType.WT_MAX_STREAMS_BIDI, CapsuleType.WT_MAX_STREAMS_UNI)
_STREAMS_BLOCKED = (CapsuleType.WT_STREAMS_BLOCKED_BIDI, CapsuleType.WT_STREAMS_BLOCKED_UNI)
_NOT_OVER_HTTP3 = (CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED)


class SessionCredit:
    """What each side of a session may send: data, and streams of both kinds.

    Only where both sides have turned flow control on. Pairs are of bidirectional and
    unidirectional streams, in this order. Methods return the capsule to send, if any.
    """

    __slots__ = ("data_in", "data_out", "streams_in", "streams_out")

    def __init__(self, limits: Limits, granted: Credit) -> None:
        self.data_in = ReceiveCredit(limits.initial_max_data)
        self.data_out = SendCredit(granted.data)
        self.streams_in = (
            ReceiveCredit(limits.initial_max_streams_bidi),
            ReceiveCredit(limits.initial_max_streams_uni),
        )
        self.streams_out = (SendCredit(granted.streams_bidi), SendCredit(granted.streams_uni))

    def data_consumed(self, size: int) -> bytes | None:
        """Stream data was used up here."""
        limit = self.data_in.consume(size)
        return None if limit is None else encode_limit(CapsuleType.WT_MAX_DATA, limit)

    def data_blocked(self) -> bytes | None:
        """The peer's limit on data stops us."""
        if not self.data_out.newly_blocked():
            return None
        return encode_limit(CapsuleType.WT_DATA_BLOCKED, self.data_out.limit)

    def stream_over(self, unidirectional: bool) -> bytes | None:
        """A stream that the peer opened has ended."""
        limit = self.streams_in[unidirectional].consume(1)
        return None if limit is None else encode_limit(_MAX_STREAMS[unidirectional], limit)

    def streams_blocked(self, unidirectional: bool) -> bytes | None:
        """The peer's limit on streams stops us."""
        credit = self.streams_out[unidirectional]
        if not credit.newly_blocked():
            return None
        return encode_limit(_STREAMS_BLOCKED[unidirectional], credit.limit)

    def receive(self, kind: CapsuleType, value: bytes) -> None:
        """Take one of the flow control capsules.

        Raises `SessionProtocolError` where it is malformed, does not raise its limit, or
        is one that HTTP/3 has no use for (section 5.3).
        """
        if kind in _NOT_OVER_HTTP3:
            raise SessionProtocolError(ErrorCode.WT_FLOW_CONTROL_ERROR, f"{kind.name} over HTTP/3")
        limit = decode_limit(value)
        if kind is CapsuleType.WT_MAX_DATA:
            self.data_out.raise_limit(limit)
        elif kind is not CapsuleType.WT_DATA_BLOCKED:
            check_stream_limit(limit)
            if kind in _MAX_STREAMS:
                self.streams_out[_MAX_STREAMS.index(kind)].raise_limit(limit)
