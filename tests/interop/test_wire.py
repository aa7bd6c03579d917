"""Peers that PyPI doesn't have, by what they put on the wire: a client and a server of bytes.

Settings and requests are as their sources have them, and as they came in from the real ones.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from pingpong.webtransport.capsules import CapsuleDecoder, CapsuleType
from pingpong.webtransport.drafts import Version
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.http3.frames import StreamType, encode_headers, encode_settings
from pingpong.webtransport.varint import encode
from tests.webtransport.wire import LIMITS, Raw, Recorder, Wire, capsule, stream_header

pytestmark = pytest.mark.interop

FIRST_GENERATION = {0xFFD277: 1, 0x2B603742: 1}
"""wtransport 0.1.1, as client and as server."""
FIRST_REQUEST = (
    (b":method", b"CONNECT"),
    (b":scheme", b"https"),
    (b":protocol", b"webtransport"),
    (b"sec-webtransport-http3-draft02", b"1"),
)
QUIC_GO = {0x6: 10 << 20, 0x33: 1}
"""webtransport-go 0.10's client: nothing in it says WebTransport."""
QUIC_GO_REQUEST = (
    (b":authority", b"localhost:4433"),
    (b":method", b"CONNECT"),
    (b":path", b"/ping"),
    (b":scheme", b"https"),
    (b":protocol", b"webtransport"),
    (b"accept-encoding", b"gzip"),
    (b"user-agent", b"quic-go HTTP/3"),
)
WTRANSPORT = {0x1: 0, 0x7: 0, 0x8: 1, 0x33: 1, 0x2B603742: 1, 0xC671706A: 1}
PYWEBTRANSPORT = {
    **{0x1: 4096, 0x7: 16, 0x8: 1, 0x33: 1},
    **{0x2B61: 0, 0x2B65: 0, 0x2B64: 0, 0x14E9CD29: 1},
}
"""pywebtransport 0.8: announces limits, of nothing."""
CHROMIUM = {0x1: 65_536, 0x7: 100, 0x33: 1, 0x2B603742: 1, 0x1F * 77 + 0x21: 1234}
CHROMIUM_REQUEST = (
    (b":method", b"CONNECT"),
    (b":authority", b"127.0.0.1:4433"),
    (b":scheme", b"https"),
    (b":path", b"/ping"),
    (b":protocol", b"webtransport"),
    (b"sec-webtransport-http3-draft02", b"1"),
    (b"origin", b"https://page.test"),
)
GO_SERVER = {0x8: 1, 0x33: 1, 0x2B603742: 1, 0x2C7CF000: 1, 0x14E9CD29: (1 << 62) - 1}
GO_10_SERVER = {0x8: 1, 0x33: 1, 0x2B603742: 1}


def send_settings(raw: Raw, settings: dict[int, int]) -> None:
    """Exactly these, zeros too."""
    raw.control = raw.open(encode(StreamType.CONTROL) + encode_settings(settings), uni=True)


@pytest.mark.parametrize("fields", list(permutations(FIRST_REQUEST)))
def test_first_generation_client(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    wire = Wire(raw_client=True)
    send_settings(wire.raw, FIRST_GENERATION)
    session_id = wire.raw.request(fields)
    wire.run()
    assert wire.raw.status(session_id) == 200
    session = wire.server.sessions[0]
    assert (session.request.path, session.request.authority) == ("/", "")
    assert wire.server.sessions[0].draft.version is Version.DRAFT_02


@pytest.mark.parametrize(
    ("settings", "fields", "version"),
    [
        (FIRST_GENERATION, FIRST_REQUEST, Version.DRAFT_02),
        (QUIC_GO, QUIC_GO_REQUEST, Version.DRAFT_07),
        (WTRANSPORT, CHROMIUM_REQUEST[:5], Version.DRAFT_07),
        (PYWEBTRANSPORT, CHROMIUM_REQUEST[:5], Version.DRAFT_14),
        (CHROMIUM, CHROMIUM_REQUEST, Version.DRAFT_02),
    ],
    ids=[
        "wtransport-0.1.1",
        "webtransport-go-0.10",
        "wtransport-0.7",
        "pywebtransport-0.8",
        "chromium",
    ],
)
@pytest.mark.parametrize("settings_first", [True, False])
def test_client(
    settings: dict[int, int],
    fields: tuple[tuple[bytes, bytes], ...],
    version: Version,
    settings_first: bool,
) -> None:
    """It opens a session, and is understood in all that it sends in it."""
    wire = Wire(raw_client=True)
    raw = wire.raw
    if settings_first:
        send_settings(raw, settings)
        wire.run()
    session_id = raw.request(fields)
    if not settings_first:
        wire.run()
        send_settings(raw, settings)
    wire.run()
    assert raw.status(session_id) == 200
    assert raw.headers(session_id).get(b"sec-webtransport-http3-draft") == (
        b"draft02" if version is Version.DRAFT_02 else None
    )
    assert wire.server.sessions[0].draft.version is version
    session = wire.server.sessions[0]
    recorder = session.handler
    assert isinstance(recorder, Recorder)

    raw.datagram(b"ping", session_id)
    both = raw.open_in(session_id, b"ping", end=True)
    uni = raw.open_in(session_id, b"ping", uni=True, end=True)
    wire.run()
    assert recorder.datagrams == [b"ping"]
    assert recorder.data == {both: b"ping", uni: b"ping"}

    session.send_datagram(b"pong")
    answered = next(stream for stream in recorder.opened if stream.id == both)
    answered.send(b"pong", end_stream=True)
    theirs = session.open_stream(recorder)
    theirs.send(b"hello", end_stream=True)
    whole = session.open_stream(recorder, unidirectional=True)
    whole.send(b"whole", end_stream=True)
    wire.run()
    assert raw.datagrams == [b"\0pong"]
    assert raw.data[both] == b"pong"
    assert raw.data[theirs.id] == stream_header(session_id, uni=False) + b"hello"
    assert raw.data[whole.id] == stream_header(session_id, uni=True) + b"whole"

    raw.send(session_id, end=True)
    wire.run()
    assert recorder.closed is not None
    assert recorder.closed.code == 0
    assert not wire.server.errors


@pytest.mark.parametrize(
    ("settings", "token"),
    [
        (FIRST_GENERATION, b"webtransport"),
        (GO_10_SERVER, b"webtransport"),
        (GO_SERVER, b"webtransport-h3"),
        (WTRANSPORT, b"webtransport"),
        (PYWEBTRANSPORT, b"webtransport"),
    ],
    ids=[
        "wtransport-0.1.1",
        "webtransport-go-0.10",
        "webtransport-go-0.13",
        "wtransport-0.7",
        "pywebtransport-0.8",
    ],
)
def test_server(settings: dict[int, int], token: bytes) -> None:
    """It is asked for a session in the words that it knows, and all modes work."""
    wire = Wire(raw_server=True)
    raw = wire.raw
    send_settings(raw, settings)
    wire.run()
    session, recorder = wire.session(path="/ping")
    assert raw.headers(session.id)[b":protocol"] == token
    raw.send(session.id, encode_headers([(b":status", b"200")]))
    wire.run()
    assert recorder.established == 1

    session.send_datagram(b"ping")
    stream = session.open_stream(recorder)
    stream.send(b"ping", end_stream=True)
    whole = session.open_stream(recorder, unidirectional=True)
    whole.send(b"whole", end_stream=True)
    theirs = raw.open_in(session.id, b"hello", end=True)
    raw.datagram(b"pong", session.id)
    wire.run()
    assert raw.datagrams == [b"\0ping"]
    assert raw.data[stream.id] == stream_header(session.id, uni=False) + b"ping"
    assert raw.data[whole.id] == stream_header(session.id, uni=True) + b"whole"
    assert recorder.datagrams == [b"pong"]
    assert recorder.data[theirs] == b"hello"
    raw.send(stream.id, b"pong", end=True)
    wire.run()
    assert recorder.data[stream.id] == b"pong"
    assert not wire.client.errors


def test_first_generation_server_answers_in_any_order() -> None:
    wire = Wire(raw_server=True)
    send_settings(wire.raw, FIRST_GENERATION)
    wire.run()
    session, recorder = wire.session()
    fields = [(b"sec-webtransport-http3-draft", b"draft02"), (b":status", b"200")]
    wire.raw.send(session.id, encode_headers(fields))
    wire.run()
    assert recorder.established == 1


@pytest.mark.parametrize("settings", [QUIC_GO, WTRANSPORT, PYWEBTRANSPORT, CHROMIUM])
@pytest.mark.parametrize(
    "fields",
    [
        FIRST_REQUEST,
        [*CHROMIUM_REQUEST[:4], (b"origin", b"https://page.test"), CHROMIUM_REQUEST[4]],
    ],
    ids=["no path", "out of order"],
)
def test_no_other_client_may_send_that(
    settings: dict[int, int], fields: list[tuple[bytes, bytes]]
) -> None:
    wire = Wire(raw_client=True)
    send_settings(wire.raw, settings)
    session_id = wire.raw.request(fields)
    wire.run()
    assert wire.raw.resets[session_id] == ErrorCode.H3_MESSAGE_ERROR
    assert not wire.server.sessions


class TestBareCapsules:
    """pywebtransport 0.8 has no DATA frames around capsules, in neither direction."""

    def session(self) -> tuple[Wire, int, Recorder]:
        wire = Wire(raw_client=True)
        send_settings(wire.raw, PYWEBTRANSPORT)
        session_id = wire.raw.request(CHROMIUM_REQUEST[:5])
        wire.run()
        recorder = wire.server.sessions[0].handler
        assert isinstance(recorder, Recorder)
        return wire, session_id, recorder

    def sent(self, wire: Wire, session_id: int) -> bytes:
        """What the CONNECT stream has brought behind the field section."""
        data = wire.raw.data[session_id]
        return data[len(encode_headers([(b":status", b"200")])) :]

    @pytest.mark.parametrize("step", [1, 3, 100])
    def test_close_of_the_peer(self, step: int) -> None:
        wire, session_id, recorder = self.session()
        data = capsule(CapsuleType.WT_CLOSE_SESSION, b"\0\0\0\7done")
        for start in range(0, len(data), step):
            wire.raw.send(session_id, data[start : start + step])
            wire.run()
        wire.raw.send(session_id, end=True)
        wire.run()
        assert recorder.closed is not None
        assert (recorder.closed.code, recorder.closed.reason) == (7, "done")
        wire.server.assert_nothing_left()

    def test_close_and_drain_of_ours(self) -> None:
        wire, session_id, _ = self.session()
        wire.server.sessions[0].drain()
        wire.server.sessions[0].close(7, "done")
        wire.run()
        assert self.sent(wire, session_id) == (
            capsule(CapsuleType.WT_DRAIN_SESSION)
            + capsule(CapsuleType.WT_CLOSE_SESSION, b"\0\0\0\7done")
        )
        assert session_id in wire.raw.ended

    def test_it_is_granted_more(self) -> None:
        """It obeys our limits, though it announced none of its own."""
        wire, session_id, recorder = self.session()
        for _ in range(LIMITS.initial_max_streams_uni // 2):
            wire.raw.open_in(session_id, b"x" * 10_000, uni=True, end=True)
            wire.run(0.01)
        kinds = [kind for kind, _ in CapsuleDecoder().feed(self.sent(wire, session_id))]
        assert set(kinds) == {CapsuleType.WT_MAX_DATA, CapsuleType.WT_MAX_STREAMS_UNI}
        assert recorder.closed is None

    def test_its_zeros_are_no_limits(self) -> None:
        wire, session_id, recorder = self.session()
        session = wire.server.sessions[0]
        for _ in range(3):
            session.open_stream(recorder, unidirectional=True).send(b"x" * 1000, end_stream=True)
        # It raises them all the same, from zero.
        wire.raw.send(session_id, capsule(CapsuleType.WT_MAX_STREAMS_UNI, b"\1"))
        wire.run()
        assert [len(data) for data in wire.raw.data.values()].count(1000 + 3) == 3
        assert recorder.closed is None
