"""Parsers by themselves: any bytes are read, or refused with the error that is theirs.

What is fed in pieces has to mean the same however it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pingpong.ping import (
    HEADER_SIZE,
    Deframer,
    MessageTooLarge,
    PlainScanner,
    answer_message,
    answer_ping,
    decode_pong,
)
from pingpong.webtransport.capsules import CapsuleDecoder, CapsuleType, decode_close, decode_limit
from pingpong.webtransport.drafts import (
    NoWebTransportError,
    check_settings,
    client_draft,
    is_lenient,
    offered_settings,
    server_draft,
)
from pingpong.webtransport.errors import ProtocolError, StreamProtocolError
from pingpong.webtransport.http3.frames import FrameReader, decode_headers, decode_settings
from pingpong.webtransport.http3.messages import parse_request, parse_response
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.retry import RetryTokens
from tests.fuzz import content
from tests.fuzz.arena import Finding
from tests.fuzz.source import Source

_LIMITS = Limits()
_MAX_MESSAGE = 4_096


def outcome(read: Callable[[], Any]) -> Any:
    """What reading gives, or the error that says why not."""
    try:
        return read()
    except ProtocolError as error:
        return type(error), error.code


def same(whole: object, cut: object, what: str) -> None:
    if whole != cut:
        raise Finding(f"cut: {what} read as {whole!r} whole, and {cut!r} in pieces")


def collected(items: Callable[[bytes], Iterator[Any]], pieces: list[bytes]) -> list[Any]:
    """All items, then the error that ended them."""
    found: list[Any] = []
    try:
        for piece in pieces:
            found.extend(items(piece))
    except ProtocolError as error:
        found.append((type(error), error.code))
    return found


def capsules(data: bytes) -> None:
    source = Source(data)
    stream = b"".join(source.several(6, content.capsule))
    if source.chance(4):
        stream = source.damaged(stream)
    found = collected(CapsuleDecoder().feed, [stream])
    same(found, collected(CapsuleDecoder().feed, source.pieces(stream)), "capsules")
    for kind, value in found:
        if kind == CapsuleType.WT_CLOSE_SESSION:
            outcome(lambda value=value: decode_close(value))  # type: ignore[misc]
        elif isinstance(kind, CapsuleType):
            outcome(lambda value=value: decode_limit(value))  # type: ignore[misc]


def http_frames(data: bytes) -> None:
    source = Source(data)
    control, is_client = source.chance(2), source.chance(2)

    def reader() -> FrameReader:
        if control:
            return FrameReader.for_control(_LIMITS.max_settings)
        return FrameReader.for_request(_LIMITS.max_field_section, is_client=is_client)

    def make(source: Source) -> bytes:
        if control:
            return content.control_frame(source)
        return content.request_frame(source, response=is_client)

    stream = b"".join(source.several(5, make))
    if source.chance(4):
        stream = source.damaged(stream)

    def joined(pieces: list[bytes]) -> list[Any]:
        frames: list[Any] = []
        for kind, payload in collected(reader().feed, pieces):
            if frames and kind == 0 == frames[-1][0]:
                frames[-1] = (0, frames[-1][1] + payload)
            else:
                frames.append((kind, payload))
        return frames

    same(joined([stream]), joined(source.pieces(stream)), "frames")


def settings(data: bytes) -> None:
    source = Source(data)
    payload = content.settings(source)
    is_client = source.chance(2)
    found = outcome(lambda: decode_settings(payload))
    if isinstance(found, tuple):
        return
    size = source.pick((1_150, 1_150, 0))
    if outcome(lambda: check_settings(found, max_datagram_size=size)) is not None:
        return
    local = offered_settings(_LIMITS, is_client=is_client)
    try:
        if is_client:
            client_draft(local, found, max_datagram_size=size)
        else:
            server_draft(local, found, b"webtransport-h3", max_datagram_size=size)
    except (NoWebTransportError, StreamProtocolError):
        pass


def field_sections(data: bytes) -> None:
    source = Source(data)
    response = source.chance(2)
    payload = content.field_section(source, response=response)
    headers = outcome(lambda: decode_headers(payload, _LIMITS.max_field_section))
    if isinstance(headers, tuple):
        return
    lenient = is_lenient({}) or source.chance(4)
    if response:
        outcome(lambda: parse_response(headers, lenient=lenient))
    else:
        head = outcome(lambda: parse_request(headers, lenient=lenient))
        if not isinstance(head, tuple):
            repr(head.refusal)


def pings(data: bytes) -> None:
    source = Source(data)
    stream = content.messages(source)
    if source.chance(4):
        stream = source.damaged(stream)
    pieces = source.pieces(stream)
    scanner, other = PlainScanner(), PlainScanner()
    whole = scanner.feed(stream, True)
    cut = b"".join(other.feed(piece) for piece in pieces) + other.feed(b"", True)
    same(whole, cut, "plain pings")

    def deframed(pieces: list[bytes]) -> tuple[list[bytes], object]:
        deframer, messages = Deframer(_MAX_MESSAGE), list[bytes]()
        try:
            for piece in pieces:
                messages += deframer.feed(piece)
        except MessageTooLarge as error:
            return messages + error.messages, error.size
        return messages, deframer.pending

    messages, rest = deframed([stream])
    same((messages, rest), deframed(pieces), "framed messages")
    for message in (*messages, stream):
        answer = answer_message(message)
        if len(answer) > max(1, len(message)):
            raise Finding(f"amplified: {message!r} is answered with {answer!r}")
        is_ping = len(message) >= HEADER_SIZE and message.startswith(b"ping")
        pong = answer_ping(message, 1, 2, 3)
        decode_pong(message)
        if is_ping != (pong is not None) or (pong is not None and len(pong) != len(message)):
            raise Finding(f"pong: {message!r} is answered with {pong!r}")


_TOKENS = RetryTokens(bytes(32))
_ADDRESSES = (("192.0.2.1", 1), ("192.0.2.1", 2), ("2001:db8::1", 1, 0, 0), ("::ffff:192.0.2.1", 1))


def retry_tokens(data: bytes) -> None:
    source = Source(data)
    made_for, used_by = source.pick(_ADDRESSES), source.pick(_ADDRESSES)
    original, retry_id = source.take(20), source.take(20)
    token = _TOKENS.make(made_for, original, retry_id, 100.0)
    sent = token
    if source.chance(2):
        sent = source.damaged(token) if source.chance(2) else source.take(100)
    now = source.pick((100.0, 114.0, 116.0, 0.0, 1e9))
    other = source.take(20) if source.chance(2) else retry_id
    try:
        found = _TOKENS.validate(used_by, other, sent, now)
    except ValueError:
        return
    if found is None and sent != token:
        return
    if (sent, used_by, other, found) != (token, made_for, retry_id, original) or now > 115:
        raise Finding(f"token: {sent!r} of {made_for} is good for {used_by}")


PARSERS: dict[str, Callable[[bytes], None]] = {
    "capsules": capsules,
    "http-frames": http_frames,
    "settings": settings,
    "field-sections": field_sections,
    "pings": pings,
    "retry-tokens": retry_tokens,
}
