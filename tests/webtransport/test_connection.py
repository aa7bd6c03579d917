from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong import webtransport
from pingpong.webtransport import Connection
from pingpong.webtransport.drafts import Setting, Version
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.events import Request
from pingpong.webtransport.http3.frames import (
    FrameType,
    encode_frame,
    encode_headers,
    encode_settings,
)
from pingpong.webtransport.quic.engine import QuicConnection
from tests.webtransport.raw import CONNECT, Raw, control, goaway, parse_control
from tests.webtransport.wire import (
    SERVER,
    Recorder,
    Wire,
    assert_connection_failed,
    identity,
    raw_wire,
)

SETTINGS = encode_settings(
    {Setting.H3_DATAGRAM: 1, Setting.WT_ENABLED: 1, Setting.ENABLE_CONNECT_PROTOCOL: 1}
)


# The beginning.


def test_settings_are_exchanged_and_a_draft_agreed_on() -> None:
    wire = Wire()
    assert wire.client.ready
    assert wire.server.ready
    draft = wire.client.connection.draft
    assert draft is not None
    assert (draft.version, draft.flow_control) == (Version.DRAFT_16, True)
    # A server's waits for a request, which may say more.
    assert wire.server.connection.draft is None
    wire.session()
    assert wire.server.connection.draft == draft


def test_servers_settings_leave_with_its_first_flight() -> None:
    wire = Wire(raw_client=True, connect=False)
    wire.client_end.connect(SERVER, identity(), wire.raw.attach, wire.now)
    wire.step()
    wire.step()
    # The client has answered nothing yet.
    assert wire.packets == 2
    assert [kind for kind, _ in parse_control(wire.raw, 3)] == [FrameType.SETTINGS]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({Setting.H3_DATAGRAM: 0, Setting.H3_DATAGRAM_DRAFT_04: 0}, "no datagrams"),
        ({Setting.ENABLE_CONNECT_PROTOCOL: 0}, "no extended CONNECT"),
        (
            {
                Setting.ENABLE_WEBTRANSPORT: 0,
                Setting.WT_ENABLED: 0,
                Setting.WT_MAX_SESSIONS: 0,
                Setting.WEBTRANSPORT_MAX_SESSIONS: 0,
                Setting.WEBTRANSPORT_MAX_SESSIONS_OLD: 0,
            },
            "do not offer WebTransport",
        ),
    ],
)
def test_server_without_webtransport_is_left_with_requirements_not_met(
    changes: dict[int, int], text: str
) -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings(changes)
    wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == ErrorCode.WT_REQUIREMENTS_NOT_MET
    assert text in wire.raw.closed.reason
    assert wire.client.errors == []
    assert not wire.client.ready
    assert wire.client.closed is not None
    assert wire.client.closed.code == ErrorCode.WT_REQUIREMENTS_NOT_MET


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({Setting.WT_ENABLED: 2}, id="WT_ENABLED"),
        pytest.param({Setting.H3_DATAGRAM: 2}, id="H3_DATAGRAM"),
        pytest.param({Setting.ENABLE_CONNECT_PROTOCOL: 2}, id="ENABLE_CONNECT_PROTOCOL"),
        pytest.param({0x02: 1}, id="HTTP/2"),
    ],
)
def test_settings_that_no_draft_allows(role: str, settings: dict[int, int]) -> None:
    wire, side = raw_wire(role)
    wire.raw.send_settings(settings)
    wire.run()
    assert_connection_failed(wire, side, ErrorCode.H3_SETTINGS_ERROR)


def test_only_streams_of_sessions_write_on() -> None:
    wire = Wire()
    session = wire.session()[0]
    for connection in (wire.client.connection, wire.server.connection):
        # The CONNECT stream, both sides' control streams, and one that nothing is known of.
        for stream_id in (session.id, 2, 3, 400):
            connection.stream_writable(stream_id)
    wire.run()
    assert not wire.client.errors
    assert not wire.server.errors
    assert wire.client.connection.closed is wire.server.connection.closed is None


# Session ids.


@pytest.mark.parametrize("session_id", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["bidi", "uni", "datagram"])
def test_session_id_that_this_client_never_asked_for(session_id: int, kind: str) -> None:
    wire = Wire(raw_server=True)
    wire.raw_accepted()
    if kind == "datagram":
        session_id = 4
        wire.raw.datagram(b"x", session_id)
    else:
        wire.raw.open_in(session_id, b"x", uni=kind == "uni")
    wire.run()
    assert_connection_failed(wire, wire.client, ErrorCode.H3_ID_ERROR)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("data", [b"", b"\x40", b"\xd0\x00\x00\x00\x00\x00\x00\x00"])
def test_datagram_without_a_session_id(role: str, data: bytes) -> None:
    wire, side = raw_wire(role)
    wire.raw.send_settings()
    wire.raw.quic.send_datagram(data)
    wire.run()
    assert_connection_failed(wire, side, ErrorCode.H3_DATAGRAM_ERROR)


def test_stream_of_a_session_whose_id_is_a_webtransport_stream_is_refused() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    stream_id = wire.raw.open_in(session_id, b"x")
    other = wire.raw.open_in(stream_id, b"x")
    wire.run()
    wire.raw.datagram(b"x", stream_id)
    wire.run()
    assert wire.raw.stops == wire.raw.resets == {other: ErrorCode.WT_SESSION_GONE}
    assert recorder.closed is None
    assert wire.server.connection.buffered_bytes() == 0


# Scopes: errors of a connection end all its sessions, and touch no other connection.


def test_error_of_one_connection_leaves_the_others_alone() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    bad = Raw()
    wire.client_end.connect(SERVER, identity(), bad.attach, wire.now)
    wire.server.ready = False
    wire.run()
    assert wire.server.ready is False
    good_connection, bad_connection = wire.server.connections
    bad.send_settings()
    wire.run()
    bad.open_in(402, b"x")
    wire.run()
    assert bad.closed is not None
    assert bad.closed.code == ErrorCode.H3_ID_ERROR
    assert bad_connection.closed is not None
    assert good_connection.closed is None
    session.send_datagram(b"fine")
    wire.run()
    assert peer.datagrams == [b"fine"]
    assert recorder.closed is None


@pytest.mark.parametrize("role", ["client", "server"])
@settings(max_examples=60)
@given(
    script=st.lists(
        st.tuples(
            st.sampled_from(["uni", "bidi", "datagram", "old", "end", "reset", "stop"]),
            st.binary(max_size=40)
            | st.builds(
                lambda a, b: a + b,
                st.sampled_from(
                    [
                        b"\x40\x54\x00",
                        b"\x40\x41\x00",
                        control(SETTINGS),
                        encode_headers(CONNECT),
                        encode_headers([(b":status", b"200")]),
                        encode_frame(FrameType.DATA, b"\x68\x43\x04\0\0\0\x09"),
                        goaway(8),
                        b"\x00",
                    ]
                ),
                st.binary(max_size=10),
            ),
        ),
        max_size=12,
    )
)
def test_nothing_that_a_peer_sends_gets_an_exception_out_of_the_endpoint(
    role: str, script: list[tuple[str, bytes]]
) -> None:
    wire, side = raw_wire(role)
    if role == "server":
        wire.raw.send_settings()
        wire.run()
        recorder = Recorder()
        side.connection.open_session(Request("localhost", "/"), recorder)
        wire.run(0.01)
    streams = [0] if role == "server" else []
    for action, data in script:
        if action in ("uni", "bidi"):
            if wire.raw.quic.can_open_stream(action == "uni"):
                streams.append(wire.raw.open(data, uni=action == "uni"))
        elif action == "datagram":
            wire.raw.quic.send_datagram(data)
        elif streams:
            stream_id = streams[len(data) % len(streams)]
            if action == "reset":
                wire.raw.reset(stream_id, len(data))
            elif action == "stop":
                wire.raw.stop(stream_id, len(data))
            else:
                wire.raw.send(stream_id, data, end=action == "end")
        wire.step()
    wire.run(0.05)
    # It goes on, or it was ended for a reason.
    assert (side.closed is None) == (wire.raw.closed is None)
    if side.closed is not None:
        assert [error.code for error in side.errors][-1] == side.closed.code
        assert side.closed.code != ErrorCode.H3_INTERNAL_ERROR
        side.assert_forgotten()


# The end.


def test_close_ends_everything_at_once() -> None:
    wire = Wire()
    _, recorder, _, _ = wire.pair()
    connection = wire.client.connection
    connection.close(ErrorCode.H3_NO_ERROR, "bye")
    assert wire.client.closed is not None
    assert recorder.closed is not None
    connection.close(ErrorCode.H3_INTERNAL_ERROR, "again")
    connection.drain()
    wire.run()
    assert wire.server.closed is not None
    assert (wire.server.closed.code, wire.server.closed.reason) == (0x100, "bye")
    assert wire.client.closed.code == 0x100


def test_streams_that_wait_for_a_session_end_with_the_connection() -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    wire.raw.open_in(session.id, b"early", uni=True)
    wire.run()
    assert wire.client.connection.buffered_bytes() == len(b"early")
    wire.client.connection.close()
    assert recorder.closed is not None
    wire.client.assert_forgotten()


def test_long_reason_is_cut_at_the_end_of_a_character() -> None:
    wire = Wire()
    wire.client.connection.close(ErrorCode.H3_NO_ERROR, "ü" * 5_000)
    wire.run()
    assert wire.server.closed is not None
    assert wire.server.closed.reason == "ü" * 128


def test_what_comes_after_the_close_is_nobodys() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    connection = wire.server.connection
    calls: list[Callable[[], None]] = [
        lambda: connection.stream_data_received(0, b"x", True, 0),
        lambda: connection.stream_data_received(400, b"\x40\x41\x00x", True, 0),
        lambda: connection.stream_data_received(402, control(SETTINGS), False, 0),
        lambda: connection.stream_reset_received(400, 1, 0),
        lambda: connection.stop_sending_received(400, 1),
        lambda: connection.stop_sending_received(3, 1),
        lambda: connection.datagram_received(b"\x00x", 0),
        lambda: connection.datagram_received(b"", 0),
        lambda: connection.stream_writable(0),
        connection.stream_credit_received,
        lambda: connection.connection_terminated(1, "", True, True, False),
    ]
    connection.close()
    for call in calls:
        call()
    wire.server.assert_forgotten()
    assert wire.server.errors == []
    assert recorder.datagrams == []
    assert session_id == 0


def test_session_is_gone_when_the_last_request_is_over() -> None:
    wire = Wire()
    session, _, _, _ = wire.pair()
    other, _, _, _ = wire.pair()
    session.close()
    wire.run()
    assert wire.client.requests_ended == wire.server.requests_ended == 0
    assert wire.client.connection.has_connect_streams
    other.close()
    assert wire.client.connection.has_connect_streams
    wire.run()
    assert wire.client.requests_ended == wire.server.requests_ended == 1
    assert not wire.client.connection.has_connect_streams


# The public face.


def test_the_example_of_the_documentation_echoes() -> None:
    text = webtransport.__doc__ or ""
    example = textwrap.dedent("\n".join(line for line in text.splitlines() if line[:1] == " "))
    names: dict[str, Any] = {
        **vars(webtransport),
        "quic": mock.create_autospec(QuicConnection, is_client=False),
    }
    exec(example, names)
    assert isinstance(names["connection"], Connection)
    wire = Wire()
    wire.server.decide = names["Server"]().session_requested
    session, recorder = wire.session()
    session.send_datagram(b"hello")
    wire.run()
    assert recorder.datagrams == [b"hello"]
