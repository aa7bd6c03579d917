"""A connection of aioquic's own, joined to an endpoint of ours, in virtual time."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite

from pingpong.webtransport.quic.config import EndpointConfig, KeyLimits
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from tests.webtransport.raw import Raw
from tests.webtransport.wire import CLIENT, LATENCY, SERVER, certificate, identity


class PlainPeer:
    """aioquic as `role`, and the other role is ours: `raw` sends and writes down what comes."""

    def __init__(
        self,
        role: str,
        key_limits: KeyLimits | None = None,
        cipher: CipherSuite = CipherSuite.AES_128_GCM_SHA256,
    ) -> None:
        self.now = 1_000.0
        self.raw = Raw()
        self.datagrams: list[bytes] = []
        """What came to the peer."""
        self.closed: events.ConnectionTerminated | None = None
        self.network: Callable[[list[bytes]], list[bytes]] = lambda packets: packets
        """What becomes of the packets that leave together in one direction."""
        made = certificate()
        configuration = QuicConfiguration(
            is_client=role == "client",
            alpn_protocols=["h3"],
            cipher_suites=[cipher],
            max_datagram_frame_size=65_535,
            verify_mode=ssl.CERT_NONE,
        )
        limits = key_limits or KeyLimits()
        if role == "client":
            self._end = AioquicEndpoint(
                EndpointConfig(certificate=made, key_limits=limits),
                lambda: None,
                self.raw.attach,
            )
            self.quic = QuicConnection(configuration=configuration)
            self.quic.connect(SERVER, self.now)
            self._ours, self._theirs = SERVER, CLIENT
        else:
            self._end = AioquicEndpoint(EndpointConfig(key_limits=limits), lambda: None)
            self._end.connect(SERVER, identity(), self.raw.attach, self.now)
            configuration.certificate = made.certificate
            configuration.private_key = made.private_key
            ((_, (first, *_)),) = packets = self._end.transmit(self.now)
            self.quic = QuicConnection(
                configuration=configuration, original_destination_connection_id=first[6:14]
            )
            self._ours, self._theirs = CLIENT, SERVER
            for _, group in packets:
                self.give(group)
        self.run()

    def give(self, packets: list[bytes]) -> None:
        """The peer gets packets."""
        for packet in packets:
            self.quic.receive_datagram(packet, self._ours, self.now)

    def take(self) -> list[bytes]:
        """What the peer sends now."""
        return [packet for packet, _ in self.quic.datagrams_to_send(self.now)]

    def receive(self, packets: list[bytes]) -> None:
        """Our side gets packets, and answers nothing yet."""
        for packet in packets:
            self._end.receive(packet, self._theirs, self.now, 0)

    def step(self) -> bool:
        """One exchange of what both have to send; false where neither had anything."""
        ours = [packet for _, group in self._end.transmit(self.now) for packet in group]
        theirs = self.take()
        if ours or theirs:
            self.now += LATENCY
        self.give(self.network(ours))
        self.receive(self.network(theirs))
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.DatagramFrameReceived):
                self.datagrams.append(event.data)
            elif isinstance(event, events.ConnectionTerminated):
                self.closed = event
        return bool(ours or theirs)

    def run(self, seconds: float = 0.1) -> None:
        """Exchange packets, and let timers fire, for a while of the clock's time."""
        end = self.now + seconds
        while True:
            while self.step():
                pass
            timers = [
                timer
                for timer in (self.quic.get_timer(), self._end.next_timer())
                if timer is not None
            ]
            if not timers or min(timers) > end:
                break
            self.now = max(self.now, min(timers))
            timer = self.quic.get_timer()
            if timer is not None and timer <= self.now:
                self.quic.handle_timer(self.now)
            self._end.handle_timers(self.now)
        self.now = max(self.now, end)
