"""How connections come about, and what is said of those that don't."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pingpong.client.discovery import Destination
from pingpong.link import dial as dialing
from pingpong.server.sessions.handlers import Router
from pingpong.webtransport.asyncio import Cause, ConnectError
from pingpong.webtransport.session import Session
from tests.client.ping.commands import serving, silent_port
from tests.client.probe.probing import path_to, probing, serving_on, to, until
from tests.support.certificates import Authority, self_signed
from tests.webtransport.asyncio.peers import closed_port


class Deciding(Router):
    """Answers a request with a status where that is not 200."""

    def __init__(self, decide: Callable[[dict[bytes, bytes]], int]) -> None:
        super().__init__(1 << 16)
        self.decide = decide

    def session_requested(self, session: Session) -> None:
        status = self.decide(dict(session.request.headers))
        if status == 200:
            super().session_requested(session)
        else:
            session.reject(status)


async def failing(result: str, destination: Destination, **options: object) -> str:
    """Probe until it has failed so; what the log says of it."""
    async with probing(destination, **options) as probes:
        await until(lambda: probes.events("connect_failed"))
        counted = {name for name, count in probes.counts().connects.items() if count}
        assert counted == {result}
        (failed,) = probes.events("connect_failed")
        assert failed["result"] == result
        assert failed["error"] in probes.reason()
        return str(failed["error"])


async def test_refused() -> None:
    assert "is unreachable" in await failing("refused", to(closed_port()))


async def test_timeout() -> None:
    with silent_port() as port:
        error = await failing("timeout", to(port), connect_timeout=0.2)
    assert error == f"no answer on UDP port {port} of 127.0.0.1 within 0.2 s"


async def test_no_address() -> None:
    nowhere = Destination("target", "https://server.invalid:4433/ping", ())
    assert await failing("dns", nowhere) == "no address for server.invalid"


async def test_a_lookup_that_takes_too_long() -> None:
    async with probing(connect_timeout=0.1) as probes:
        probes.is_slow = True
        probes.probe(to(closed_port()))
        await until(lambda: "no address for target within 0.1 s" in probes.reason())
        assert probes.counts().connects["dns"]


async def test_another_certificate() -> None:
    async with serving() as listener:
        error = await failing("tls", to(listener.port), cert_hash=bytes(32))
    assert "certificate" in error


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    async with serving() as listener:
        error = await failing("tls", to(listener.port), cert_hash=None, ca=missing)
    assert error == f"cannot read {missing}: no such file or directory"


async def test_an_expired_certificate(tmp_path: Path) -> None:
    day = datetime.timedelta(days=1)
    leaf = Authority().issue("127.0.0.1", begins=-2 * day, ends=-day)
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(leaf.authority_pem)
    async with serving(with_certificate=leaf) as listener:
        error = await failing("tls", to(listener.port), cert_hash=None, ca=authorities)
    assert "out of date" in error


async def test_no_such_path() -> None:
    async with serving() as listener:
        error = await failing("http_status", to(listener.port, path="/nothing"))
    assert error == "the server answered 404 for /nothing"


@pytest.mark.parametrize("status", [401, 403])
async def test_unauthorized(status: int) -> None:
    async with serving(Deciding(lambda headers: status)) as listener:
        await failing("unauthorized", to(listener.port))


async def test_a_token_that_cannot_be_read(tmp_path: Path) -> None:
    async with serving() as listener:
        error = await failing("unauthorized", to(listener.port), token_file=tmp_path / "token")
    assert "cannot read the file" in error


async def test_the_token_is_read_anew_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    seen: list[bytes] = []

    def decide(headers: dict[bytes, bytes]) -> int:
        seen.append(headers[b"authorization"])
        return 200 if headers[b"authorization"] == b"Bearer second" else 401

    async with (
        serving(Deciding(decide)) as listener,
        probing(to(listener.port), token_file=file) as probes,
    ):
        await until(lambda: probes.counts().connects["unauthorized"])
        file.write_text("second\n")
        await until(probes.is_up)
        assert set(seen) == {b"Bearer first", b"Bearer second"}
        assert "first" not in probes._log.getvalue()
        assert "second" not in probes._log.getvalue()


async def test_the_authorities_are_read_anew_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    leaf = Authority().issue("127.0.0.1")
    file.write_bytes(Authority().pem)
    async with (
        serving(with_certificate=leaf) as listener,
        probing(to(listener.port), cert_hash=None, ca=file) as probes,
    ):
        await until(lambda: probes.counts().connects["tls"])
        file.write_bytes(leaf.authority_pem)
        await until(probes.is_up)


async def test_each_connection_has_a_lookup_and_a_socket_of_its_own() -> None:
    async with serving() as listener:
        with path_to(listener.port) as path:
            async with probing(to(path.port)) as probes:
                for turn in (1, 2, 3):
                    await probes.answered()
                    assert probes.lookups == ["target"] * turn
                    assert path.clients == turn
                    (connection,) = listener.connections
                    for session in connection.sessions:
                        session.close(0, "again")
                    while path.clients == turn:
                        await asyncio.sleep(0.002)


async def test_what_is_told_of_a_connection() -> None:
    async with serving() as listener, probing(to(listener.port)) as probes:
        await until(probes.is_up)
        counts = probes.counts()
        assert {phase: one.count for phase, one in counts.connect_duration.items()} == {
            "resolve": 1, "handshake": 1, "session": 1,
        }  # fmt: skip
        assert counts.connect_duration["handshake"].sum > 0
        assert counts.not_after == self_signed().certificate.not_valid_after_utc.timestamp()


async def test_drained_goes_to_another_address_first() -> None:
    """Both answer: the old one's is tried last, whatever the order of the lookup."""
    async with serving(host="127.0.0.1") as listener:
        port = listener.port
        async with serving_on(port, "127.0.0.2") as other:
            both = to(port, "target", "/ping", "127.0.0.1", "127.0.0.2")
            async with probing(both) as probes:
                await probes.answered()
                assert len(other.connections) == 0
                listener.drain()
                await until(lambda: "session_moved" in probes.story())
                (moved,) = probes.events("session_moved")
                assert (moved["before"], moved["address"]) == ("127.0.0.1", "127.0.0.2")
                await probes.answered()
                assert len(other.connections) == 1


async def test_attempts_begin_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd gets through a few at a time, and who waits for nobody keeps no place."""
    under_way = most = done = 0

    async def connect(*words: object) -> None:
        nonlocal under_way, most, done
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        done += 1
        raise ConnectError(Cause.NO_ANSWER, "nobody")

    monkeypatch.setattr(dialing, "resolve_and_connect", connect)
    async with probing(*(to(4433, f"target-{number}") for number in range(20))):
        await until(lambda: done >= 20)
        assert 1 < most <= dialing._MAX_ATTEMPTS


async def test_who_takes_long_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "_MAX_ATTEMPTS", 1)
    monkeypatch.setattr(dialing, "_SLOT_TIMEOUT", 0.02)
    async with serving() as listener:
        with silent_port() as silent:
            dead = [to(silent, f"dead-{number}") for number in range(5)]
            async with probing(*dead, to(listener.port)) as probes:
                await until(probes.is_up)
                assert all(not probes.counts(one.name).connects["timeout"] for one in dead)


async def test_an_address_that_is_gone_is_left_for_the_new_one_while_it_is_tried() -> None:
    async with serving() as listener:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.2", listener.port))  # and never reads
            old = to(listener.port, "target", "/ping", "127.0.0.2")
            async with probing(old, connect_timeout=60.0) as probes:
                await until(lambda: probes.lookups)
                probes.destinations = {"target": to(listener.port)}
                await until(probes.is_up)
                assert probes.session().peer.address == "127.0.0.1"
                assert probes.counts().connects["timeout"] == 0


async def test_a_target_that_leaves_while_it_is_tried_does_no_harm() -> None:
    with silent_port() as port:
        async with probing(to(port), connect_timeout=1.3) as probes:
            await until(lambda: probes.lookups)
            probes.destinations = {}
            await until(lambda: probes.counts().connects["timeout"])
            assert not probes.events("prober_failed")
