from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.quic.config import EndpointConfig
from pingpong.webtransport.quic.connection_ids import (
    CONNECTION_ID_SIZE,
    MAX_WORKERS,
    RESET_TOKEN_SIZE,
    ConnectionIds,
    SharedKeys,
    worker_of,
)
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from tests.webtransport.wire import SERVER, Wire, hand_over, identity

places = st.integers(1, MAX_WORKERS).flatmap(
    lambda workers: st.tuples(st.integers(0, workers - 1), st.just(workers))
)


@given(place=places, before=st.binary(min_size=5, max_size=5), after=st.binary(max_size=20))
def test_packets_to_an_id_lead_to_the_worker_that_made_it(
    place: tuple[int, int], before: bytes, after: bytes
) -> None:
    worker, workers = place
    made = ConnectionIds(b"key", worker, workers).make()
    assert len(made) == CONNECTION_ID_SIZE
    long = bytes((before[0] | 0x80,)) + before[1:] + b"\x08" + made + after
    short = bytes((before[0] & 0x7F,)) + made + after
    assert worker_of(long, workers) == worker_of(short, workers) == worker


def test_ids_are_as_varied_as_they_can_be() -> None:
    for worker, workers in ((0, 1), (0, 3), (2, 3), (63, 64)):
        ids = ConnectionIds(b"key", worker, workers)
        made = {ids.make() for _ in range(3_000)}
        assert len(made) == 3_000
        assert {one[0] for one in made} == set(range(worker, 256, workers))


@pytest.mark.parametrize(
    "packet", [b"", b"\x40", b"\xc0", b"\xc0\0\0\0\x01", b"\xc0\0\0\0\x01\x08"]
)
def test_what_is_too_short_to_say_is_for_the_first_worker(packet: bytes) -> None:
    assert worker_of(packet, 7) == 0


def test_first_byte_after_an_empty_id_decides_too() -> None:
    # The length of the source's id then; nobody's connection, but always the same worker's.
    assert worker_of(b"\xc0\0\0\0\x01\x00\x0a" + bytes(20), 7) == 3


@pytest.mark.parametrize(("worker", "workers"), [(-1, 2), (2, 2), (0, 0), (0, MAX_WORKERS + 1)])
def test_worker_that_cannot_be_is_refused(worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match=f"no worker {worker} of {workers}"):
        ConnectionIds(b"key", worker, workers)
    with pytest.raises(ValueError, match="no worker"):
        AioquicEndpoint(EndpointConfig(worker=worker, workers=workers), lambda: None)


def test_reset_token_depends_on_key_and_id_alone() -> None:
    first = ConnectionIds(b"key", 0, 2).reset_token(b"01234567")
    assert len(first) == RESET_TOKEN_SIZE
    assert ConnectionIds(b"key", 1, 2).reset_token(b"01234567") == first
    assert ConnectionIds(b"other", 0, 2).reset_token(b"01234567") != first
    assert ConnectionIds(b"key", 0, 2).reset_token(b"01234568") != first


def test_derived_keys_are_the_same_for_the_same_secret_in_the_same_place() -> None:
    keys = SharedKeys.derive(b"secret", "here 4433")
    assert keys == SharedKeys.derive(b"secret", "here 4433")
    assert len(keys.retry) == len(keys.reset) == 32
    others = [SharedKeys.derive(b"secret", "there 4433"), SharedKeys.derive(b"public", "here 4433")]
    assert len({keys.retry, keys.reset, *(key for o in others for key in (o.retry, o.reset))}) == 6


def test_keys_are_random_otherwise_and_never_shown() -> None:
    keys = SharedKeys()
    assert keys != SharedKeys()
    shown = repr(EndpointConfig(keys=keys)) + str(keys)
    assert repr(keys.retry) not in shown
    assert repr(keys.reset) not in shown
    assert keys.retry != keys.reset


# What an endpoint gives out.


def test_all_ids_of_an_endpoint_lead_to_its_worker() -> None:
    wire = Wire(worker=5, workers=7)
    wire.pair()
    for _ in range(20):
        wire.client.engine._quic.change_connection_id()
        wire.client.connection.sessions[0].send_datagram(b"x")
        wire.run()
    quic = wire.server.engine._quic
    assert quic._host_cid_seq > 20
    assert {connection_id[0] % 7 for connection_id in quic.connection_ids} == {5}
    assert len(quic.connection_ids) == 8


def test_retry_leads_to_the_worker_that_sent_it() -> None:
    for worker in range(5):
        wire = Wire(raw_client=True, connect=False, max_handshakes=0, worker=worker, workers=5)
        retries: list[bytes] = []

        def note(
            packets: list[bytes], to_server: bool, retries: list[bytes] = retries
        ) -> list[bytes]:
            retries.extend(packet for packet in packets if packet[0] & 0xF0 == 0xF0)
            return packets

        wire.network = note
        wire.connect()
        (retry,) = retries
        assert retry[7 + retry[5]] % 5 == worker
        assert wire.raw.closed is None
        assert wire.server_end.counters.handshakes == 1


def test_client_reaches_the_worker_of_its_own_number() -> None:
    for worker in range(6):
        end = AioquicEndpoint(EndpointConfig(worker=worker, workers=6), lambda: None)
        wire = Wire(raw_client=True, connect=False)
        end.connect(SERVER, identity(), wire.raw.attach, wire.now)
        ((_, packets),) = end.transmit(wire.now)
        assert [worker_of(packet, 6) for packet in packets] == [worker] * len(packets)
        assert hand_over(wire.server_end, packets[0])
        assert len(wire.server_end) == 1
