"""aioquic's connection with its own connection ids, stateless resets, and an early release of memory.

aioquic uses random connection ids and stateless reset tokens; here they are from `connection_ids`.
aioquic ignores stateless resets, and cannot end a connection without a CONNECTION_CLOSE. The objects
of an ended connection have reference cycles, so their memory waits for the garbage collector.
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
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketNumberWindow, QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509

from .config import KeyLimits
from .connection_ids import ConnectionIds
from .engine import RESET_REASON
from .keys import PacketKeys
from .reassembly import TooManyPiecesError

# Each packet looks up epochs a dozen times or more. Each epoch is a single object, so it can have the
# hash of an object; that of `Enum` is slow. This comes before any of them is in a set or dictionary.
tls.Epoch.__hash__ = object.__hash__  # type: ignore[method-assign]

# In a program without a logging configuration, aioquic's warnings about peers would go to stderr.
logging.getLogger("quic").addHandler(logging.NullHandler())

_KEY_REASONS = {
    QuicErrorCode.AEAD_LIMIT_REACHED: "the keys were used for as many packets as they are safe for",
    QuicErrorCode.KEY_UPDATE_ERROR: "a key update before the previous one was confirmed",
}
_EPOCHS = (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT)
"""Those with packet numbers of their own."""
_NO_KEYS = CryptoPair()
_PAST_SPACE = QuicPacketSpace()
"""Shared by all connections: replaces the handshake's packet spaces, which are discarded."""
_PAST_SPACE.discarded = True
_MAX_HOST_IDS = 8
"""Maximum active connection ids that a peer gets, as in aioquic."""
_MAX_CLOSE_REASON = 256
"""Bytes of a reason for a close: a packet has to hold it, three times during a handshake."""
_CERTIFICATE_STATES = (
    tls.State.CLIENT_EXPECT_CERTIFICATE_REQUEST_OR_CERTIFICATE,
    tls.State.CLIENT_EXPECT_CERTIFICATE,
    tls.State.CLIENT_EXPECT_CERTIFICATE_VERIFY,
)
"""States in which the peer's certificate is read and verified."""


class CryptoBuffers(dict[tls.Epoch, Buffer]):
    """The buffers of TLS for data to send, each created at its first use."""

    def __missing__(self, epoch: tls.Epoch) -> Buffer:
        made = self[epoch] = Buffer(capacity=CRYPTO_BUFFER_SIZE)
        return made


class InitialKeys(dict[int, CryptoPair]):
    """The keys of Initial packets by QUIC version, each derived at its first use.

    A connection nearly always has packets of one version only.
    """

    def __init__(self, peer_cid: bytes, *, is_client: bool) -> None:
        super().__init__()
        self._peer_cid = peer_cid
        self._is_client = is_client

    def __missing__(self, version: int) -> CryptoPair:
        made = self[version] = CryptoPair()
        made.setup_initial(cid=self._peer_cid, is_client=self._is_client, version=version)
        return made


class SeenPackets(QuicPacketNumberWindow):
    """The received packet numbers; counts duplicates."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = 0

    def __contains__(self, packet_number: int) -> bool:
        is_repeat = packet_number < self._lower or packet_number in self._received
        self.repeats += is_repeat
        return is_repeat


class IdentifiedConnection(QuicConnection):
    """aioquic's connection with its own connection ids and ends."""

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
        """False if the peer's close arrived before the handshake authenticated the peer."""
        self._ids_unsent = True
        """Whether a connection id may not have been sent."""
        self._is_discarded = False
        self._duplicates = 0
        """The `duplicate_packets` of an ended connection."""
        self._certificate: x509.Certificate | None = None
        """The peer's certificate of an ended connection."""
        first = self._host_cids[0]
        first.cid = self.host_cid = self._local_initial_source_connection_id = ids.make()
        if self._is_client:
            self._peer_cid.cid = self._original_destination_connection_id = ids.make()
            self._logger.extra = {"id": self._peer_cid.cid.hex()}
        else:
            first.stateless_reset_token = ids.reset_token(first.cid)

    def _initialize(self, peer_cid: bytes) -> None:
        # In place of aioquic's method, which makes the keys of all versions, buffers that are
        # replaced, and what only the resumption of sessions and a separate log need.
        assert self._version is not None
        configuration = self._configuration
        self.tls = context = tls.Context(
            alpn_protocols=configuration.alpn_protocols,
            cadata=configuration.cadata,
            cafile=configuration.cafile,
            capath=configuration.capath,
            cipher_suites=configuration.cipher_suites,
            is_client=self._is_client,
            logger=self._logger,
            server_name=configuration.server_name,
            verify_mode=configuration.verify_mode,
        )
        context.certificate = configuration.certificate
        context.certificate_chain = configuration.certificate_chain
        context.certificate_private_key = configuration.private_key
        parameters = self._serialize_transport_parameters()
        context.handshake_extensions = [(tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS, parameters)]
        context.alpn_cb = self._alpn_handler
        context.update_traffic_key_cb = self._update_traffic_key
        initial = InitialKeys(peer_cid, is_client=self._is_client)
        self._cryptos_initial = initial
        self._cryptos = {
            tls.Epoch.INITIAL: initial[self._version],
            tls.Epoch.ZERO_RTT: CryptoPair(),
            tls.Epoch.HANDSHAKE: CryptoPair(),
            tls.Epoch.ONE_RTT: self._keys,
        }
        self._crypto_buffers = CryptoBuffers()
        self._crypto_streams = {epoch: QuicStream() for epoch in _EPOCHS}
        self._spaces = {
            epoch: QuicPacketSpace(is_application_data=epoch is tls.Epoch.ONE_RTT)
            for epoch in _EPOCHS
        }
        self._spaces[tls.Epoch.ONE_RTT].received_packets = SeenPackets()
        self._loss.spaces = list(self._spaces.values())

    def _discard_epoch(self, epoch: tls.Epoch) -> None:
        super()._discard_epoch(epoch)
        if epoch is tls.Epoch.INITIAL:
            # No keys are made for another version from now on.
            versions = self._configuration.supported_versions
            self._cryptos_initial = dict.fromkeys(versions, _NO_KEYS)

    def _push_crypto_data(self) -> None:
        super()._push_crypto_data()
        # 16 KiB each, and empty now.
        self._crypto_buffers.clear()

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        # Not now, while a packet of the handshake is processed.
        self._keys.review_at = 0

    def _forget_handshake(self) -> None:
        """Discard the keys and packets of the handshake (RFC 9001, section 4.9)."""
        space = self._spaces[tls.Epoch.ONE_RTT]
        self._loss.spaces = [space]
        self._spaces = dict.fromkeys(self._spaces, _PAST_SPACE) | {tls.Epoch.ONE_RTT: space}
        self._cryptos = dict.fromkeys(self._cryptos, _NO_KEYS) | {tls.Epoch.ONE_RTT: self._keys}
        self._cryptos_initial = dict.fromkeys(self._cryptos_initial, _NO_KEYS)
        self._crypto_streams = {tls.Epoch.ONE_RTT: self._crypto_streams[tls.Epoch.ONE_RTT]}

    @property
    def duplicate_packets(self) -> int:
        """Duplicate packets, which were discarded (RFC 9000, section 12.3)."""
        if self._is_discarded:
            return self._duplicates
        seen = self._spaces[tls.Epoch.ONE_RTT].received_packets
        assert isinstance(seen, SeenPackets)
        return seen.repeats

    @property
    def idle_timeout(self) -> float:
        """The idle timeout in seconds: the minimum of both sides' (RFC 9000, section 10.1)."""
        return float(self._idle_timeout())

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(_MAX_HOST_IDS, self._remote_active_connection_id_limit):
            made = self._ids.make()
            token = self._ids.reset_token(made)
            self._host_cids.append(QuicConnectionId(made, self._host_cid_seq, token))
            self._host_cid_seq += 1
            self._ids_unsent = True

    def _on_new_connection_id_delivery(
        self, delivery: QuicDeliveryState, connection_id: QuicConnectionId
    ) -> None:
        super()._on_new_connection_id_delivery(delivery, connection_id)
        self._ids_unsent = True

    def _has_unsent_ids(self) -> bool:
        """Whether the peer does not know all connection ids that it may use."""
        if self._ids_unsent:
            self._ids_unsent = not all(each.was_sent for each in self._host_cids)
        return self._ids_unsent

    def _handle_connection_close_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if self._close_event is None:
            self.closed_by_peer = True
            # Observers of the first packet can derive the keys of Initial packets.
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
            # The traceback of TLS's alert can be part of a reference cycle.
            if error.__context__ is not None:
                error.__context__.__traceback__ = None
            raise
        except (BufferReadError, TooManyPiecesError):
            raise
        except Exception as error:
            if self.tls.state not in _CERTIFICATE_STATES:
                raise
            # For example a name that service_identity cannot process; another call raises the same.
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.bad_certificate,
                frame_type,
                str(error) or type(error).__name__,
            ) from None

    # For `connection.py`.

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The peer's certificate; None before the peer sent it."""
        return self._certificate if self._is_discarded else self.tls._peer_certificate

    @property
    def has_ended(self) -> bool:
        """Whether it only repeats its close, and receives nothing (RFC 9000, section 10.2)."""
        return self._state in END_STATES

    @property
    def ending(self) -> events.ConnectionTerminated | None:
        """Why the connection ends, as soon as this is known; aioquic's event comes much later."""
        return self._close_event

    @property
    def connection_ids(self) -> list[bytes]:
        """The active connection ids of this side."""
        return [connection_id.cid for connection_id in self._host_cids]

    @property
    def peer_id(self) -> QuicConnectionId:
        """The peer's connection id in use; another object if it changes."""
        return self._peer_cid

    @property
    def reset_token(self) -> bytes:
        """The peer's stateless reset token; empty if it sent none."""
        return self._peer_cid.stateless_reset_token or b""

    def reset_received(self, now: float) -> None:
        """Process a stateless reset (RFC 9000, section 10.3.1)."""
        if self._close_event is None:
            self.closed_by_peer = True
            self._close_event = events.ConnectionTerminated(
                error_code=QuicErrorCode.INTERNAL_ERROR,
                frame_type=QuicFrameType.PADDING,
                reason_phrase=RESET_REASON,
            )
            self._close_begin(is_initiator=False, now=now)

    def give_up(self, now: float) -> None:
        """End the connection now, as at the idle timeout."""
        self._close_at = now
        self.handle_timer(now)

    def review_keys(self, now: float) -> None:
        """Update the keys in time, or close if that fails. Call it before packets are made."""
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
        """Release nearly all memory of an ended connection.

        The rest has no reference cycles, so it is freed with its last reference. The properties, and
        the timer of the closing period, still work.
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
        # Datagrams that are queued from now on are discarded.
        self._datagrams_pending = deque(maxlen=0)
        self._loss.spaces = []
        self._loss._send_probe = _do_nothing
        self._loss_at = None


def _do_nothing() -> None:
    pass
