"""What quic.py and what it stands on reach for in aioquic: a release that moves it fails here.

`HookedConnection` overrides and reads what aioquic does not promise to keep. The first
part says name by name what has to be there; the second, that it means what it meant.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import aioquic
import pytest
from aioquic import tls
from aioquic.quic import connection as aioquic_connection
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicStreamFrame
from aioquic.quic.packet_builder import (
    QuicDeliveryState,
    QuicPacketBuilder,
    QuicPacketBuilderStop,
)
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import (
    QuicPacketNumberWindow,
    QuicPacketRecovery,
    QuicPacketSpace,
)
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from pingpong.webtransport.quic import aioquic as seam
from pingpong.webtransport.quic import (
    hardening,
    identity,
    one_rtt,
    reassembly,
    recovery,
    reset_stream_at,
)
from pingpong.webtransport.quic.aioquic import HookedConnection
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.quic.connection import _IDLE_REASON
from pingpong.webtransport.quic.connection_ids import ConnectionIds
from pingpong.webtransport.quic.one_rtt import OneRttConnection
from tests.webtransport.wire import Recorder, Wire, certificate

MODULES = (seam, identity, hardening, one_rtt, reassembly, recovery, reset_stream_at)
MOVED = (
    f"aioquic {aioquic.__version__} has moved something that pingpong/webtransport/quic/aioquic.py"
    " reaches for; adapt it there: "
)

METHODS = {
    "_alpn_handler": "(self, alpn_protocol: str) -> None",
    "_assert_stream_can_receive": "(self, frame_type: int, stream_id: int) -> None",
    "_assert_stream_can_send": "(self, frame_type: int, stream_id: int) -> None",
    "_close_begin": "(self, is_initiator: bool, now: float) -> None",
    "_confirm_handshake": "(self) -> None",
    "_discard_epoch": "(self, epoch) -> None",
    "_handle_crypto_frame": "(self, context, frame_type: int, buf) -> None",
    "_initialize": "(self, peer_cid: bytes) -> None",
    "_push_crypto_data": "(self) -> None",
    "_get_or_create_stream": "(self, frame_type: int, stream_id: int) -> QuicStream",
    "_handle_connection_close_frame": "(self, context, frame_type: int, buf) -> None",
    "_handle_max_streams_bidi_frame": "(self, context, frame_type: int, buf) -> None",
    "_handle_max_streams_uni_frame": "(self, context, frame_type: int, buf) -> None",
    "_handle_reset_stream_frame": "(self, context, frame_type: int, buf) -> None",
    "_handle_stop_sending_frame": "(self, context, frame_type: int, buf) -> None",
    "_on_ack_delivery": "(self, delivery, space, highest_acked: int) -> None",
    "_on_connection_limit_delivery": "(self, delivery, limit) -> None",
    "_on_max_stream_data_delivery": "(self, delivery, stream) -> None",
    "_on_new_connection_id_delivery": "(self, delivery, connection_id) -> None",
    "_idle_timeout": "(self) -> float",
    "_parse_transport_parameters": "(self, data: bytes, from_session_ticket: bool = False) -> None",
    "_payload_received": "(self, context, plain: bytes, crypto_frame_required: bool = False)",
    "_replenish_connection_ids": "(self) -> None",
    "_send_probe": "(self) -> None",
    "_serialize_transport_parameters": "(self) -> bytes",
    "_stream_is_discarded": "(self, stream_id: int) -> bool",
    "_stream_limit": "(self, stream_id: int)",
    "_unblock_streams": "(self, is_unidirectional: bool) -> None",
    "_update_traffic_key": "(self, direction, epoch, cipher_suite, secret: bytes) -> None",
    "_write_connection_close_frame": "(self, builder, epoch, error_code: int, frame_type,"
    " reason_phrase: str) -> None",
    "_write_connection_limits": "(self, builder, space) -> None",
    "_write_reset_stream_frame": "(self, builder, stream) -> None",
    "_write_stream_limits": "(self, builder, space, stream) -> None",
}
ATTRIBUTES: dict[str, type] = {
    "_ack_delay": float,
    "_ack_eliciting_sent_since_receipt": bool,
    "_close_at": type(None),
    "_close_event": type(None),
    "_close_pending": bool,
    "_configuration": QuicConfiguration,
    "_crypto_buffers": dict,
    "_crypto_streams": dict,
    "_cryptos": dict,
    "_cryptos_initial": dict,
    "_datagrams_pending": object,
    "_events": object,
    "_handshake_complete": bool,
    "_handshake_confirmed": bool,
    "_handshake_done_pending": bool,
    "_host_cid_seq": int,
    "_host_cids": list,
    "_is_client": bool,
    "_loss": object,
    "_loss_at": type(None),
    "_local_ack_delay_exponent": int,
    "_local_initial_source_connection_id": bytes,
    "_local_max_data": object,
    "_local_max_stream_data_bidi_remote": int,
    "_local_max_stream_data_uni": int,
    "_local_max_streams_bidi": object,
    "_local_max_streams_uni": object,
    "_local_next_stream_id_bidi": int,
    "_local_next_stream_id_uni": int,
    "_logger": object,
    "_max_datagram_size": int,
    "_network_paths": list,
    "_original_destination_connection_id": bytes,
    "_packet_number": int,
    "_pacing_at": type(None),
    "_peer_cid": object,
    "_ping_pending": list,
    "_probe_pending": bool,
    "_QuicConnection__frame_handlers": dict,
    "_remote_ack_delay_exponent": int,
    "_remote_active_connection_id_limit": int,
    "_remote_max_data": int,
    "_remote_max_data_used": int,
    "_remote_max_datagram_frame_size": type(None),
    "_remote_max_idle_timeout": type(None),
    "_remote_max_stream_data_bidi_local": int,
    "_remote_max_streams_bidi": int,
    "_remote_max_streams_uni": int,
    "_remote_preferred_address": type(None),
    "_retire_connection_ids": list,
    "_spaces": dict,
    "_spin_bit": bool,
    "_spin_highest_pn": int,
    "_state": object,
    "_version": type(None),
    "_streams": dict,
    "_streams_blocked_bidi": list,
    "_streams_blocked_pending": bool,
    "_streams_blocked_uni": list,
    "_streams_queue": list,
}
OF_STREAMS = {
    QuicStream: {
        *("is_blocked", "max_stream_data_local", "max_stream_data_local_sent"),
        *("max_stream_data_remote", "stream_id"),
    },
    QuicStreamSender: {
        *("_buffer", "_buffer_fin", "_buffer_start", "_buffer_stop", "_pending", "_pending_eof"),
        *("_reset_error_code", "buffer_is_empty", "highest_offset", "is_finished"),
        "reset_pending",
    },
    QuicStreamReceiver: {
        *("_buffer_start", "_final_size", "_stream_id", "highest_offset", "is_finished"),
        "stop_pending",
    },
}
OF_RECOVERY = {
    *("_cc", "_pacer", "_pto_count", "_rtt_first_sample_time", "_rtt_initialized"),
    *("_rtt_latest", "_rtt_min", "_rtt_smoothed", "_rtt_variance", "max_ack_delay"),
    *("_time_of_last_sent_ack_eliciting_packet", "handshake_confirmed"),
    "peer_completed_address_validation",
}


@pytest.fixture
def plain() -> QuicConnection:
    """aioquic's own, as it comes."""
    return QuicConnection(configuration=QuicConfiguration(is_client=True))


def hooked() -> OneRttConnection:
    return OneRttConnection(QuicConfiguration(is_client=True), Windows(), ConnectionIds(b"key"))


def names(signature: inspect.Signature) -> list[tuple[str, object]]:
    return [(p.name, p.default) for p in signature.parameters.values()]


@pytest.mark.parametrize("name", METHODS)
def test_method_is_there_with_its_parameters(name: str) -> None:
    method = getattr(QuicConnection, name, None)
    assert method is not None, MOVED + f"QuicConnection.{name} is gone"
    expected = re.findall(r"(\w+)(?:: [\w.]+)?( = \w+)?[,)]", METHODS[name])
    found = [(key, default) for key, default in names(inspect.signature(method))]
    wanted = [(key, False if default else inspect.Parameter.empty) for key, default in expected]
    assert found == wanted, MOVED + f"QuicConnection.{name}{inspect.signature(method)}"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_is_there(plain: QuicConnection, name: str) -> None:
    assert hasattr(plain, name), MOVED + f"QuicConnection.{name} is gone"
    value = getattr(plain, name)
    assert isinstance(value, ATTRIBUTES[name]), MOVED + f"QuicConnection.{name} is {value!r}"


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, of in OF_STREAMS.items() for name in sorted(of)]
)
def test_attribute_of_streams_is_there(kind: type, name: str) -> None:
    stream = QuicStream(stream_id=0)
    one = {QuicStream: stream, QuicStreamSender: stream.sender}.get(kind, stream.receiver)
    assert hasattr(one, name), MOVED + f"{kind.__name__}.{name} is gone"


def test_nothing_else_is_reached_for() -> None:
    """Every private name of aioquic's in them is one of those above."""
    source = "".join(Path(inspect.getfile(module)).read_text() for module in MODULES)
    used = set(re.findall(r"\b(?:self|stream|sender|receiver|\.sender|\.receiver)\.(_\w+)", source))
    used |= set(re.findall(r"\.(_\w+)\b", source))
    # What the class itself adds, and nobody else may.
    own = {name for kind in OneRttConnection.__mro__[:-2] for name in vars(kind)} - set(METHODS)
    own |= set(vars(hooked()))
    own -= set(vars(QuicConnection(configuration=QuicConfiguration(is_client=True))))
    known = set(METHODS) | set(ATTRIBUTES) | own
    known |= {name for of in OF_STREAMS.values() for name in of}
    known |= {"_peer_certificate", "_receive_buffer", "_send_probe"}  # see below
    known |= OF_RECOVERY | {"_detect_loss", "_on_packets_lost"}
    known |= {"_RangeSet__ranges", "_lower", "_received"}  # see below
    for kind, base in (
        (reassembly.StreamReceiver, QuicStreamReceiver),
        (recovery.Recovery, QuicPacketRecovery),
    ):
        known |= set(vars(kind)) - set(vars(base))
    known |= set(vars(reassembly.StreamReceiver(0, reassembly.Buffers())))
    unknown = {name for name in used - known if not name.startswith("__")}
    assert not unknown, f"pin these as well: {sorted(unknown)}"


def test_only_quic_py_reaches_below_the_public_api() -> None:
    folder = Path(inspect.getfile(seam)).parent
    for path in folder.rglob("*.py"):
        if path.name in {Path(inspect.getfile(module)).name for module in MODULES}:
            continue
        found = re.findall(r"_quic\._\w+|quic\._[a-z]\w+", path.read_text())
        assert not found, f"{path.name}: {found}"


def test_limits_and_spaces_have_what_is_used_of_them(plain: QuicConnection) -> None:
    for limit in (
        plain._local_max_data,
        plain._local_max_streams_bidi,
        plain._local_max_streams_uni,
    ):
        assert {"value", "sent", "used", "frame_type"} <= set(vars(limit)), MOVED + "Limit"
    space = {"ack_at", "ack_eliciting_in_flight", "largest_acked_packet", "sent_packets"}
    assert space <= set(vars(QuicPacketSpace())), MOVED + "QuicPacketSpace"
    assert {"spaces", "_send_probe"} <= set(vars(plain._loss)), MOVED + "QuicPacketRecovery"
    known = set(vars(plain._host_cids[0]))
    assert {"cid", "was_sent", "stateless_reset_token"} <= known, MOVED + "QuicConnectionId"
    wire = Wire()
    path = wire.client.engine._quic._network_paths[0]
    assert {"is_validated", "remote_challenges"} <= set(vars(path)), MOVED + "QuicNetworkPath"
    assert wire.client.engine._quic._spaces.keys() >= {tls.Epoch.ONE_RTT}, MOVED + "_spaces"
    assert wire.client.engine.peer_certificate == certificate().certificate, MOVED + "tls"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONNECTION_LIMIT_FRAME_CAPACITY", 9),
        ("MAX_STREAM_DATA_FRAME_CAPACITY", 17),
    ],
)
def test_capacities_suffice(name: str, value: int) -> None:
    assert getattr(aioquic_connection, name) >= value


# What it means.


def test_every_frame_that_aioquic_handles_is_in_our_table(plain: QuicConnection) -> None:
    theirs = plain._QuicConnection__frame_handlers  # type: ignore[attr-defined]
    ours = HookedConnection._FRAMES
    assert ours.keys() - theirs.keys() == {reset_stream_at.RESET_STREAM_AT}, (
        MOVED + "the types of frames, or it knows RESET_STREAM_AT by itself now"
    )
    for frame_type, (handler, epochs) in theirs.items():
        name, allowed, *_ = ours[frame_type]
        assert handler.__name__ == name, MOVED + f"the handler of frame 0x{frame_type:x}"
        assert allowed <= epochs, f"frame 0x{frame_type:x}"
    table = hooked()._QuicConnection__frame_handlers  # type: ignore[attr-defined]
    assert not table, MOVED + "the table of frame handlers"


def test_streams_of_the_peer_have_what_aioquic_gives_them() -> None:
    wire = Wire()
    session, _, _, _ = wire.pair()
    for unidirectional in (False, True):
        stream = session.open_stream(Recorder(), unidirectional=unidirectional)
        wire.step()
        ours = wire.server.engine._quic._streams[stream.id]
        assert vars(ours).keys() == vars(QuicStream(stream_id=0)).keys(), MOVED + "QuicStream"
        assert ours.sender.is_finished == unidirectional


def test_packets_are_taken_in_by_our_methods() -> None:
    wire = Wire()
    wire.pair()
    quic = wire.server.engine._quic
    assert isinstance(quic._loss, recovery.Recovery), MOVED + "loss recovery"
    for stream in (*quic._streams.values(), *quic._crypto_streams.values()):
        assert isinstance(stream.receiver, reassembly.StreamReceiver), MOVED + "streams"
    assert {*OF_RECOVERY} <= set(vars(quic._loss)), MOVED + "QuicPacketRecovery"
    assert quic.tls._receive_buffer == b"", MOVED + "tls._receive_buffer"
    space = quic._spaces[tls.Epoch.ONE_RTT]
    assert {"sent_packets", "largest_acked_packet", "ack_eliciting_in_flight"} <= set(vars(space))


@pytest.mark.parametrize("rtt", [0.0, 0.000_02, 0.001, 0.3, 5.0])
@pytest.mark.parametrize("window", [2_400, 12_000, 1_000_000])
def test_packets_are_paced_as_by_aioquic(window: int, rtt: float) -> None:
    ours, theirs = (
        hooked()._loss,
        QuicConnection(configuration=QuicConfiguration(is_client=True))._loss,
    )
    ours._rtt_smoothed = rtt
    ours._update_pace(window)
    theirs._pacer.update_rate(congestion_window=window, smoothed_rtt=rtt)
    assert vars(ours._pacer) == pytest.approx(vars(theirs._pacer))
    now = 1_000.0
    for step in (0.0, 0.0, 0.000_01, 0.0, rtt / 8, rtt, 0.0, 0.0):
        now += step
        waits = theirs._pacer.next_send_time(now) is not None
        if not waits:
            theirs._pacer.update_after_send(now)
        assert ours.may_send(now) is not waits
        assert vars(ours._pacer) == pytest.approx(vars(theirs._pacer))


def test_packets_to_acknowledge_are_a_list_of_ranges_which_stays() -> None:
    queue = RangeSet()
    ranges = queue._RangeSet__ranges  # type: ignore[attr-defined]
    queue.add(1)
    queue.add(4)
    assert ranges == [range(1, 2), range(4, 5)], MOVED + "RangeSet"
    queue.subtract(0, 4)
    queue.shift()
    assert ranges == [], MOVED + "RangeSet"
    assert {"_lower", "_received"} <= set(vars(QuicPacketNumberWindow())), MOVED + "the window"


def test_sender_keeps_what_is_to_be_sent_in_ranges() -> None:
    sender = QuicStream(stream_id=0).sender
    sender.write(b"0123456789", True)
    assert isinstance(sender._pending, RangeSet)
    assert (sender._buffer_start, sender._buffer_stop, sender._buffer_fin) == (0, 10, 10)
    sender._pending.subtract(4, 10)
    sender._pending_eof = False
    frame = sender.get_frame(100)
    assert frame is not None
    assert (frame.data, frame.fin, sender.highest_offset) == (b"0123", False, 4)
    assert sender.get_frame(100) is None
    assert sender.buffer_is_empty
    # What is lost is to be sent again, and what is acknowledged is forgotten.
    sender.on_data_delivery(QuicDeliveryState.LOST, 0, 4, False)
    assert not sender.buffer_is_empty
    assert [(r.start, r.stop) for r in sender._pending] == [(0, 4)]
    sender.on_data_delivery(QuicDeliveryState.ACKED, 0, 4, False)
    assert (sender._buffer_start, sender._buffer) == (4, b"456789")
    # After a reset neither counts any more.
    sender._reset_error_code = 1
    sender.on_data_delivery(QuicDeliveryState.LOST, 4, 10, True)
    assert not sender._pending_eof


def test_receiver_counts_what_was_delivered_and_what_came() -> None:
    receiver = QuicStream(stream_id=0).receiver
    assert receiver.starting_offset() == 0
    receiver.handle_frame(QuicStreamFrame(data=b"cd", offset=2))
    assert (receiver.starting_offset(), receiver.highest_offset) == (0, 4)
    event = receiver.handle_frame(QuicStreamFrame(data=b"ab", offset=0))
    assert isinstance(event, events.StreamDataReceived)
    assert event.data == b"abcd"
    assert receiver.starting_offset() == 4
    receiver.handle_reset(final_size=9)
    assert (receiver.is_finished, receiver.highest_offset) == (True, 9)


def test_reset_that_is_pending_is_written_by_our_method() -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    quic = wire.client.engine._quic
    written: list[QuicStream] = []
    original = quic._write_reset_stream_frame

    def write(builder: QuicPacketBuilder, stream: QuicStream) -> None:
        written.append(stream)
        original(builder, stream)

    quic._write_reset_stream_frame = write  # type: ignore[method-assign]
    stream = session.open_stream(recorder)
    wire.step()
    inner = quic._streams[stream.id]
    inner.sender.reset_pending = True
    quic._sent_resets[stream.id] = (7, 2)
    wire.client.engine._request_transmit()
    wire.step()
    assert written == [inner], MOVED + "reset_pending is not what makes a reset be written"


def test_limits_are_written_by_our_methods_in_each_packet() -> None:
    wire = Wire()
    wire.pair()
    quic = wire.client.engine._quic
    called: list[str] = []
    limits, stream_limits = quic._write_connection_limits, quic._write_stream_limits

    def note_limits(builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        called.append("connection")
        limits(builder=builder, space=space)

    def note_stream_limits(
        builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        called.append("stream")
        stream_limits(builder=builder, space=space, stream=stream)

    quic._write_connection_limits = note_limits  # type: ignore[method-assign]
    quic._write_stream_limits = note_stream_limits  # type: ignore[method-assign]
    quic.send_ping(0)  # so that aioquic writes the packet
    wire.client.connection.sessions[0].send_datagram(b"x")
    wire.client_end.transmit(wire.now)
    assert called[0] == "connection", MOVED + "when limits are written"
    assert called.count("stream") >= len(quic._streams)


def test_packets_end_where_the_builder_says_stop() -> None:
    """So the needless last round of writing frames is cut short."""
    wire = Wire()
    wire.pair()
    quic = wire.client.engine._quic

    def stop(builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        raise QuicPacketBuilderStop

    quic._write_connection_limits = stop  # type: ignore[method-assign]
    quic.send_ping(0)  # so that aioquic writes the packet
    quic._datagrams_pending.append(b"\x00x")
    assert quic.datagrams_to_send(wire.now) == []
    assert list(quic._datagrams_pending) == [b"\x00x"]


def test_acknowledgement_is_sent_when_its_time_is_now() -> None:
    wire = Wire()
    session, _, _, _ = wire.pair()
    wire.run(1)
    session.send_datagram(b"x")
    wire.step()
    quic = wire.server.engine._quic
    space = quic._spaces[tls.Epoch.ONE_RTT]
    assert space.ack_at is not None
    assert space.ack_at > wire.now
    assert quic.datagrams_to_send(wire.now) == []
    assert quic.prepare(wire.now, has_news=True)
    assert len(quic.datagrams_to_send(wire.now)) == 1
    assert space.ack_at is None


def test_ids_are_those_that_we_make_wherever_they_are_kept() -> None:
    wire = Wire()
    for quic in (wire.client.engine._quic, wire.server.engine._quic):
        first = quic._host_cids[0]
        assert first.cid == quic._local_initial_source_connection_id == quic.host_cid, MOVED
        assert first.sequence_number == 0, MOVED
        made = quic._host_cids[-1]
        assert made.sequence_number == len(quic._host_cids) - 1 == quic._host_cid_seq - 1, MOVED
        assert made.stateless_reset_token == quic._ids.reset_token(made.cid), MOVED
        assert isinstance(quic._logger.extra, dict), MOVED


def test_what_is_given_up_ends_without_a_word() -> None:
    wire = Wire()
    quic = wire.client.engine._quic
    quic.give_up(wire.now)
    assert quic.ending is not None
    assert quic.ending.reason_phrase == _IDLE_REASON, MOVED
    assert quic.get_timer() is None, MOVED
    assert quic.datagrams_to_send(wire.now) == [], MOVED


def test_idle_timeout_has_the_reason_that_it_is_known_by() -> None:
    wire = Wire(idle_timeout=1.0)
    wire.lose = lambda packet, to_server: True
    wire.run(10)
    assert wire.client.closed is not None
    assert wire.client.closed.reason == _IDLE_REASON, MOVED + "the idle timeout's reason"
    assert wire.client.closed.code == QuicErrorCode.INTERNAL_ERROR
    assert wire.client.closed.timed_out


def test_datagram_of_the_size_that_is_promised_fills_a_packet() -> None:
    wire = Wire()
    session, _, _, _ = wire.pair()
    wire.run(1)
    session.send_datagram(bytes(session.max_datagram_size))
    ((_, packets),) = wire.client_end.transmit(wire.now)
    assert [len(packet) for packet in packets] == [1200]


def test_transport_parameters_are_sent_and_read() -> None:
    sent = hooked()
    sent._version = sent._configuration.supported_versions[0]
    parameters = sent._serialize_transport_parameters()
    assert b"\x01\x1d\x00" in parameters or b"\x1d\x00\xc0\x17\xf7\x58" in parameters
    assert parameters.endswith(b"\xc0\x17\xf7\x58\x6d\x2c\xb5\x71\x00")
    for parameter in (b"\x1d\x00", b"\xc0\x17\xf7\x58\x6d\x2c\xb5\x71\x00", b""):
        received = hooked()
        received._parse_transport_parameters(b"\x04\x01\x05" + parameter, True)
        assert received.peer_resets_at == bool(parameter)
        assert received._remote_max_data == 5


def test_stream_windows_are_what_was_asked_for() -> None:
    windows = Windows(connection=10_000, stream=5_000, streams_bidi=7, streams_uni=9)
    wire = Wire(windows=windows)
    quic = wire.client.engine._quic
    assert (quic._remote_max_streams_bidi, quic._remote_max_streams_uni) == (7, 9)
    assert quic._remote_max_data == 10_000
    assert quic._remote_max_stream_data_bidi_remote == 5_000


def test_frame_of_a_malformed_packet_ends_the_connection_and_not_the_endpoint() -> None:
    wire = Wire(raw_client=True)
    wire.raw_session()
    quic = wire.server.engine._quic
    context = QuicReceiveContext(
        epoch=tls.Epoch.ONE_RTT,
        host_cid=quic.host_cid,
        network_path=quic._network_paths[0],
        quic_logger_frames=None,
        time=wire.now,
        version=None,
    )
    with pytest.raises(aioquic_connection.QuicConnectionError):
        quic._payload_received(context, b"\x40\x24")
