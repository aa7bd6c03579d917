"""aioquic's connection with other connection ids, and with ends that aioquic does not know.

aioquic makes its connection ids and stateless reset tokens of random bytes, where `connection_ids` has reasons for both; it neither hears a stateless
reset nor ends a connection without a word; and what has ended stays whole until Python's garbage
collector finds it, because its parts refer to one another.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    CRYPTO_BUFFER_SIZE,
    END_STATES,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicReceiveContext,
)
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketNumberWindow, QuicPacketSpace
from cryptography import x509

from .config import KeyLimits
from .connection_ids import ConnectionIds
from .keys import PacketKeys
from .reassembly import TooManyPiecesError

# Epochs are keys of what each packet needs, a dozen and more times. Each is one object: it may as well
# hash as that, where `Enum` hashes names, in Python. Before any of them is in a set or a dictionary.
tls.Epoch.__hash__ = object.__hash__  # type: ignore[method-assign]

# Where a program sets up no logging, what aioquic says of a peer's faults would go to its stderr.
logging.getLogger("quic").addHandler(logging.NullHandler())

RESET_REASON = "stateless reset: the peer knows nothing of this connection any more"
_KEY_REASONS = {
    QuicErrorCode.AEAD_LIMIT_REACHED: "the keys were used for as many packets as they are safe for",
    QuicErrorCode.KEY_UPDATE_ERROR: "a key update before the one before was confirmed",
}
_NO_KEYS = CryptoPair()
_PAST_SPACE = QuicPacketSpace()
"""For all connections: what stands where the handshake's keys and packets were."""
_PAST_SPACE.discarded = True
_MAX_HOST_IDS = 8
"""Connection ids that a peer is given at one time, as aioquic has it."""
_MAX_CLOSE_REASON = 256
"""Bytes of a reason for a close: it has to fit in a packet, thrice during a handshake."""
_CERTIFICATE_STATES = (
    tls.State.CLIENT_EXPECT_CERTIFICATE_REQUEST_OR_CERTIFICATE,
    tls.State.CLIENT_EXPECT_CERTIFICATE,
    tls.State.CLIENT_EXPECT_CERTIFICATE_VERIFY,
)
"""Those in which the peer's certificate is read and verified."""


class CryptoBuffers(dict[tls.Epoch, Buffer]):
    """Where TLS writes what it has to send: each buffer is made when it is first written to."""

    def __missing__(self, epoch: tls.Epoch) -> Buffer:
        made = self[epoch] = Buffer(capacity=CRYPTO_BUFFER_SIZE)
        return made


class SeenPackets(QuicPacketNumberWindow):
    """Packet numbers that were received; counts those that are received again."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = 0

    def __contains__(self, packet_number: int) -> bool:
        is_repeat: bool = super().__contains__(packet_number)
        self.repeats += is_repeat
        return is_repeat


class IdentifiedConnection(QuicConnection):
    """What a connection is known by to its peer, and how it ends."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        ids: ConnectionIds,
        key_limits: KeyLimits | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(configuration=configuration, **kwargs)
        self._ids = ids
        self._keys = PacketKeys(key_limits or KeyLimits())
        self.closed_by_peer = False
        self.close_is_authenticated = True
        """False where the peer's close came before the handshake had shown who the peer is."""
        self._is_discarded = False
        self._duplicates = 0
        """Of a connection that has ended: what `duplicate_packets` was then."""
        self._certificate: x509.Certificate | None = None
        """Of a connection that has ended: the peer's."""
        first = self._host_cids[0]
        first.cid = self.host_cid = self._local_initial_source_connection_id = ids.make()
        if self._is_client:
            self._peer_cid.cid = self._original_destination_connection_id = ids.make()
            self._logger.extra = {"id": self._peer_cid.cid.hex()}
        else:
            first.stateless_reset_token = ids.reset_token(first.cid)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._spaces[tls.Epoch.ONE_RTT].received_packets = SeenPackets()
        self._crypto_buffers = CryptoBuffers()
        # Those that aioquic makes write a log of their own, which is not kept here.
        self._cryptos[tls.Epoch.ZERO_RTT] = CryptoPair()
        self._cryptos[tls.Epoch.HANDSHAKE] = CryptoPair()
        self._cryptos[tls.Epoch.ONE_RTT] = self._keys

    def _push_crypto_data(self) -> None:
        super()._push_crypto_data()
        # 16 KiB each, and empty from here on.
        self._crypto_buffers.clear()

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        # Not now, in the midst of a packet of the handshake.
        self._keys.review_at = 0

    def _forget_handshake(self) -> None:
        """Nothing of the handshake can be read any more, nor is sent (RFC 9001, section 4.9)."""
        space = self._spaces[tls.Epoch.ONE_RTT]
        self._loss.spaces = [space]
        self._spaces = dict.fromkeys(self._spaces, _PAST_SPACE) | {tls.Epoch.ONE_RTT: space}
        self._cryptos = dict.fromkeys(self._cryptos, _NO_KEYS) | {tls.Epoch.ONE_RTT: self._keys}
        self._cryptos_initial = dict.fromkeys(self._cryptos_initial, _NO_KEYS)
        self._crypto_streams = {tls.Epoch.ONE_RTT: self._crypto_streams[tls.Epoch.ONE_RTT]}

    @property
    def duplicate_packets(self) -> int:
        """Packets that came again, and were discarded (RFC 9000, section 12.3)."""
        if self._is_discarded:
            return self._duplicates
        seen = self._spaces[tls.Epoch.ONE_RTT].received_packets
        assert isinstance(seen, SeenPackets)
        return seen.repeats

    @property
    def idle_timeout(self) -> float:
        """Seconds of silence that end it: the shorter of both sides' (RFC 9000, section 10.1)."""
        return float(self._idle_timeout())

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(_MAX_HOST_IDS, self._remote_active_connection_id_limit):
            made = self._ids.make()
            token = self._ids.reset_token(made)
            self._host_cids.append(QuicConnectionId(made, self._host_cid_seq, token))
            self._host_cid_seq += 1

    def _handle_connection_close_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if self._close_event is None:
            self.closed_by_peer = True
            # Anyone who sees a first packet can derive the keys of an Initial.
            self.close_is_authenticated = (
                self._handshake_complete and context.epoch is not tls.Epoch.INITIAL
            )
        super()._handle_connection_close_frame(context, frame_type, buf)

    def _write_connection_close_frame(
        self,
        builder: QuicPacketBuilder,
        epoch: tls.Epoch,
        error_code: int,
        frame_type: int | None,
        reason_phrase: str,
    ) -> None:
        reason_phrase = reason_phrase.encode()[:_MAX_CLOSE_REASON].decode(errors="ignore")
        super()._write_connection_close_frame(builder, epoch, error_code, frame_type, reason_phrase)

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        try:
            super()._handle_crypto_frame(context, frame_type, buf)
        except QuicConnectionError as error:
            # Of TLS's alert, the traceback may lead to a variable that holds the alert.
            if error.__context__ is not None:
                error.__context__.__traceback__ = None
            raise
        except (BufferReadError, TooManyPiecesError):
            raise
        except Exception as error:
            if self.tls.state not in _CERTIFICATE_STATES:
                raise
            # Names that service_identity does not know what to do with, among others; what it says
            # of them once more raises the same.
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.bad_certificate,
                frame_type,
                str(error) or type(error).__name__,
            ) from None

    # What the seam asks for.

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The certificate that the peer has shown, None before it has."""
        return self._certificate if self._is_discarded else self.tls._peer_certificate

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is sent and received, but for the close again (section 10.2)."""
        return self._state in END_STATES

    @property
    def ending(self) -> events.ConnectionTerminated | None:
        """Why the connection ends, as soon as it is known: aioquic reports it much later."""
        return self._close_event

    @property
    def connection_ids(self) -> list[bytes]:
        """What packets to this connection may be addressed to now."""
        return [connection_id.cid for connection_id in self._host_cids]

    @property
    def peer_id(self) -> QuicConnectionId:
        """The connection id on the packets that are sent; another object when it is another."""
        return self._peer_cid

    @property
    def reset_token(self) -> bytes:
        """What ends a stateless reset of the peer's; empty where it gave none."""
        return self._peer_cid.stateless_reset_token or b""

    def reset_received(self, now: float) -> None:
        """The peer knows nothing of the connection any more (RFC 9000, section 10.3.1)."""
        if self._close_event is None:
            self.closed_by_peer = True
            self._close_event = events.ConnectionTerminated(
                error_code=QuicErrorCode.INTERNAL_ERROR,
                frame_type=QuicFrameType.PADDING,
                reason_phrase=RESET_REASON,
            )
            self._close_begin(is_initiator=False, now=now)

    def give_up(self, now: float) -> None:
        """End the connection here and now, as if the peer had not been heard for long."""
        self._close_at = now
        self.handle_timer(now)

    def review_keys(self, now: float) -> None:
        """To be called before packets are made: update keys in time, close where that fails."""
        if self._handshake_confirmed and len(self._crypto_streams) > 1:
            self._forget_handshake()
        space = self._spaces[tls.Epoch.ONE_RTT]
        error = self._keys.review(
            self._packet_number,
            space.largest_acked_packet,
            now,
            3 * self._loss.get_probe_timeout(),
            confirmed=self._handshake_confirmed,
        )
        if error is not None:
            self.close(error, QuicFrameType.PADDING, _KEY_REASONS[error])
        elif self._keys.wants_acknowledgement and not space.ack_eliciting_in_flight:
            self.send_ping(0)

    def discard_state(self) -> None:
        """Give back what a connection that has ended needs no more: nearly everything.

        What is left has no circle of references in it, so that it goes as soon as it is forgotten.
        It still says when the closing period is over, and all that the seam asks of it.
        """
        if self._is_discarded:
            return
        if self._spaces:
            self._duplicates = self.duplicate_packets
            self._certificate = self.tls._peer_certificate
            del self.tls
        self._is_discarded = True
        self._keys.teardown()
        for space in self._spaces.values():
            space.sent_packets.clear()
        for part in (
            *(self._cryptos, self._cryptos_initial, self._crypto_buffers, self._crypto_streams),
            *(self._spaces, self._streams, self._streams_queue, self._events),
            *(self._streams_blocked_bidi, self._streams_blocked_uni, self._ping_pending),
        ):
            part.clear()
        # What is queued from now on goes nowhere.
        self._datagrams_pending = deque(maxlen=0)
        self._loss.spaces = []
        self._loss._send_probe = _do_nothing
        self._loss_at = None


def _do_nothing() -> None:
    pass
