"""A target through its life: found, lost, found again, moved; real sockets, a path that breaks."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from types import SimpleNamespace

import pytest

from pingpong.link import link as links
from pingpong.link import reconnect
from pingpong.link import session as sessions
from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport.session import Session
from tests.client.ping.commands import MODES, serving
from tests.client.probe.probing import (
    INTERVAL,
    Tampering,
    drain,
    path_to,
    probing,
    serving_elsewhere,
    serving_on,
    to,
    until,
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is taken for dead soon."""
    monkeypatch.setattr(links, "_SHORTEST_DEAD", 0.3)


QUICK = {"timeout": 0.1, "connect_timeout": 0.4}


async def test_every_mode_is_probed_on_one_session() -> None:
    async with serving() as listener, probing(to(listener.port), mode=MODES) as probes:
        await until(lambda: all(probes.completed("ok", mode) >= 4 for mode in MODES))
        (connection,) = listener.connections
        assert len(connection.sessions) == 1
        for mode in MODES:
            counts = probes.counts().modes[mode]
            assert counts.sent - counts.completed["ok"] in (0, 1)
            # The first of a session is told apart.
            assert counts.first_rtt.count == 1
            assert counts.rtt.count == counts.completed["ok"] - 1
            assert counts.reordered == counts.completed["malformed"] == 0
        assert probes.counts().duplicates == 0
        assert probes.counts().server_time.count >= 4 * len(MODES)
        assert probes.counts().connects["ok"] == 1
        assert probes.is_up()
        assert probes.story() == ["target_added", "target_up"]


async def test_what_has_no_session_is_not_sent_and_not_lost() -> None:
    async with serving() as listener:
        port = listener.port
    async with probing(to(port)) as probes:
        await until(lambda: probes.completed("send_error") >= 3)
        assert probes.sent() == probes.completed("lost") == 0
        assert not probes.is_up()
        assert probes.counts().connects["refused"] > 0
        (failed,) = probes.events("connect_failed")
        assert failed["result"] == "refused"
        assert "is unreachable" in probes.reason()


async def test_a_server_that_comes_back_ends_one_outage() -> None:
    async with serving() as listener, probing(to(port := listener.port)) as probes:
        await probes.answered()
        await listener.close(7, "bye")
        await until(lambda: not probes.is_up())
        errors = probes.completed("send_error")
        await until(lambda: probes.completed("send_error") > errors + 10)
        assert probes.metrics.sessions_closed["closed"] == 1
        assert probes.metrics.outages.count == 0
        assert "the server closed the session (code 7): bye; UDP port" in probes.reason()
        async with serving_on(port):
            await probes.answered()
        (down,) = probes.events("target_down")[:1]
        assert down["cause"] == "the server closed the session (code 7): bye"
        _, up = probes.events("target_up")
        assert up["outage_seconds"] == pytest.approx(probes.metrics.outages.sum, abs=0.001)
        # From the last answer to the first, but for a pause of its own before it connected.
        assert up["outage_seconds"] > 10 * INTERVAL - 0.1
        assert probes.metrics.outages.count == 1


async def test_lost_packets_are_counted_over_all_sessions() -> None:
    async with serving() as listener:
        with path_to(listener.port) as path:
            async with probing(to(path.port)) as probes:
                counts = probes.counts()
                lost = 0
                for _ in range(2):
                    await probes.answered(2)
                    path.lose = lambda packet, to_server: to_server
                    await asyncio.sleep(4 * INTERVAL)
                    path.lose = lambda packet, to_server: False
                    await probes.answered(2)
                    for connection in list(listener.connections):
                        connection.close(0x100)
                    await until(lambda: not probes.is_up())
                    after = counts.path_of()
                    assert after is not None
                    assert after.lost_packets > lost
                    lost = after.lost_packets
                    assert 0 < after.smoothed_rtt < 5
                    assert after.congestion_window > 1_000


async def test_a_pause_of_its_own_is_no_outage() -> None:
    """Where the server is there, and only this side waits before it connects again."""
    options = {"backoff_min": 3.0, "backoff_max": 3.0}
    async with serving() as listener, probing(to(listener.port), **options) as probes:
        seconds: list[float] = []
        while max(seconds, default=0.0) < 0.5:
            await probes.answered()
            (connection,) = listener.connections
            ended_at = time.monotonic()
            connection.sessions[0].close(0, "again")
            await until(lambda: not probes.is_up())
            await until(probes.is_up)
            seconds.append(time.monotonic() - ended_at)
        *_, up = probes.events("target_up")
        assert up["outage_seconds"] < seconds[-1] - 0.3
        assert probes.completed("send_error") > 0.5 / INTERVAL


async def test_a_server_that_is_gone_without_a_word_is_noticed() -> None:
    async with serving() as listener, probing(to(listener.port), interval=0.02) as probes:
        await probes.answered()
        listener.endpoint.close()
        await until(lambda: probes.metrics.sessions_closed["error"] == 1)
        assert not probes.is_up()
        (down,) = probes.events("target_down")
        assert down["cause"] == "the server stopped: its UDP port is closed"
        # What was under way is lost with the session, in a direction that nobody knows.
        assert probes.completed("lost") == probes.counts().lost["unknown"] > 0


async def test_a_refusal_alone_changes_nothing() -> None:
    """It can be forged. Another connection is made to see, and the old one goes on."""
    async with serving() as listener, probing(to(listener.port)) as probes:
        await probes.answered()
        session = probes.session()
        session.client._socket_error(ConnectionRefusedError(111, "Connection refused"))
        await probes.answered()
        assert probes.is_up()
        assert probes.completed("lost") == 0
        assert probes.metrics.outages.count == 0


async def test_drained_means_move_first() -> None:
    async with serving() as listener, serving() as other:
        with path_to(listener.port) as path:
            async with probing(to(path.port), mode=MODES) as probes:
                await probes.answered()
                path.lead_to(other.port)
                drain(listener)
                await until(lambda: not listener.connections)
                await probes.answered()
                assert len(other.connections) == 1
                assert probes.story() == ["target_added", "target_up", "session_moved"]
                assert probes.metrics.sessions_closed["drain"] == 1
                assert probes.metrics.outages.count == 0
                for mode in MODES:
                    for result in ("late", "lost", "send_error"):
                        assert probes.completed(result, mode) == 0


async def test_drained_with_nowhere_to_go_stays_until_there_is() -> None:
    async with serving() as listener, serving() as other:
        with path_to(listener.port) as path:
            async with probing(to(path.port), **QUICK) as probes:
                await probes.answered()
                path.lose = lambda data, to_server: path.clients > 1
                drain(listener)
                await until(lambda: probes.counts().connects["timeout"])
                path.lose = lambda data, to_server: False
                await probes.answered()
                assert probes.completed("lost") == 0
                path.lead_to(other.port)
                await until(lambda: probes.metrics.sessions_closed["drain"])
                assert probes.metrics.outages.count == 0


@pytest.mark.usefixtures("impatient")
async def test_a_dead_path_is_left_as_soon_as_another_lives() -> None:
    async with serving() as listener:
        with path_to(listener.port) as path:
            async with probing(to(path.port), **QUICK) as probes:
                await probes.answered()
                path.is_dead = True
                await until(lambda: not probes.is_up())
                await until(lambda: probes.counts().connects["timeout"] >= 2)
                path.is_dead = False
                await probes.answered()
                assert probes.metrics.outages.count == 1
                assert probes.metrics.outages.sum > 0.3
                assert "target_down" in probes.story()


async def test_a_silent_path_is_left_before_it_is_called_dead_where_there_is_another() -> None:
    async with serving() as listener, serving() as other:
        with path_to(listener.port) as path:
            async with probing(to(path.port), interval=1.0) as probes:
                await until(probes.is_up)
                probes.destinations = {"target": to(other.port)}
                path.is_dead = True
                await until(lambda: "session_moved" in probes.story())
                (moved,) = probes.events("session_moved")
                assert moved["cause"] == "no packets received for 1 s"
                await until(probes.is_up)
                assert probes.metrics.outages.count == 1


async def test_a_short_silence_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_SHORTEST_DEAD", 60.0)
    monkeypatch.setattr(links, "_UNANSWERED", 10_000)
    async with serving() as listener:
        with path_to(listener.port) as path:
            async with probing(to(path.port)) as probes:
                await probes.answered()
                path.is_frozen = True
                await until(lambda: path.clients > 1)
                path.let_go()
                await probes.answered()
                assert probes.story() == ["target_added", "target_up"]
                assert probes.metrics.outages.count == 0
                assert probes.completed("lost") == 0


@pytest.mark.usefixtures("impatient")
async def test_a_frozen_server_is_late_and_nothing_is_lost() -> None:
    async with serving() as listener:
        with path_to(listener.port) as path:
            async with probing(to(path.port), **QUICK) as probes:
                await probes.answered()
                path.is_frozen = True
                await until(lambda: not probes.is_up())
                await until(lambda: path.clients > 2)
                path.let_go()
                await probes.answered()
                # What it had been sent in its sleep comes first, and ends the doubt.
                await until(lambda: probes.completed("late") >= 3)
                assert probes.completed("lost") == 0
                assert probes.completed("send_error") == 0
                assert probes.metrics.outages.count == 1
                assert probes.counts().connects["ok"] == 1
                assert "session_moved" not in probes.story()
                assert len(listener.connections) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_session_whose_probes_stay_unanswered_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It lives, as its acknowledgements show, but is of no use."""
    monkeypatch.setattr(links, "_UNANSWERED", 3)
    async with serving() as listener, probing(to(listener.port), **QUICK) as probes:
        await probes.answered()
        (connection,) = listener.connections
        (session,) = connection.sessions
        session.handler = SessionHandler()
        await until(lambda: "session_moved" in probes.story())
        (moved,) = probes.events("session_moved")
        assert moved["cause"] == "no answer to 3 consecutive probes"
        await probes.answered()
        assert probes.metrics.outages.count == 1


async def test_rare_probes_keep_their_session() -> None:
    """Without keep-alives it would idle out between two of them."""
    async with serving() as listener, probing(to(listener.port), interval=60) as probes:
        await until(probes.is_up)
        session = probes.session()
        pump = session.client.endpoint.pump
        session._sent_at -= 60
        packets = pump.received_packets
        await until(lambda: pump.received_packets > packets)
        assert probes.sent() == 1


async def test_what_this_process_slept_through_is_nobody_s_loss() -> None:
    with serving_elsewhere() as port:
        async with probing(to(port), interval=0.02, timeout=0.1) as probes:
            await probes.answered()
            skipped = probes.metrics.skipped
            for _ in range(4):
                await probes.answered(1)
                # One is under way, and its answer comes while nobody looks.
                probes.link()._send("datagram")
                time.sleep(0.25)
            await probes.answered()
            assert probes.metrics.skipped >= skipped + 4 * 10
            for result in ("late", "lost", "send_error"):
                assert probes.completed(result) == 0
            assert probes.counts().modes["datagram"].rtt.sum < 0.1
            assert probes.story() == ["target_added", "target_up"]


async def test_what_the_network_does_not_take_is_a_send_error() -> None:
    async with serving() as listener, probing(to(listener.port)) as probes:
        await probes.answered()
        pump = probes.session().client.endpoint.pump
        sock, sent = pump._sock, probes.sent()

        class Forbidden:
            """As a firewall on this host does it."""

            def __getattr__(self, name: str) -> object:
                return getattr(sock, name)

            def send(self, data: bytes) -> int:
                raise PermissionError(errno.EPERM, "Operation not permitted")

        pump._sock = Forbidden()  # type: ignore[assignment]
        await until(lambda: probes.completed("send_error") >= 3)
        pump._sock = sock
        await probes.answered()
        assert probes.completed("lost") == 0
        assert probes.sent() - sent <= probes.completed("ok")


async def test_a_server_that_forgot_the_session_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was started anew between two probes: what it sends is of no connection."""
    monkeypatch.setattr(links, "_SHORTEST_DEAD", 60)
    async with serving() as listener, probing(to(port := listener.port)) as probes:
        await probes.answered()
        listener.endpoint.close()
        async with serving_on(port):
            await until(lambda: "session_moved" in probes.story())
            await probes.answered()
            assert probes.metrics.outages.count == 1
            assert probes.metrics.sessions_closed["idle"] == 0


async def test_losses_have_their_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "HORIZON", 0.1)
    seen = 0

    def tamper(session: Session, data: bytes, handler: SessionHandler) -> None:
        nonlocal seen
        seen += 1
        if seen % 4 == 1:
            return  # as if it had not arrived
        unheard = SimpleNamespace(send_datagram=lambda answer: True)
        handler.datagram_received(unheard if seen % 4 == 2 else session, data, time.monotonic_ns())  # type: ignore[arg-type]

    async with serving() as listener, probing(to(listener.port), **QUICK) as probes:
        await probes.answered()
        (connection,) = listener.connections
        Tampering(connection.sessions[0], tamper)
        await until(lambda: min(probes.counts().lost[way] for way in ("out", "back")) >= 3)
        lost = probes.counts().lost
        assert lost["unknown"] == 0
        assert probes.completed("lost") >= lost["out"] + lost["back"]
        counts = probes.counts()
    # With the end all is known, but of what came behind the last answer.
    assert sum(lost.values()) == counts.modes["datagram"].completed["lost"]
    assert lost["out"] + lost["back"] >= seen // 4 * 2 - 2


async def test_answers_twice_and_of_nobody() -> None:
    def tamper(session: Session, data: bytes, handler: SessionHandler) -> None:
        handler.datagram_received(session, data, time.monotonic_ns())
        handler.datagram_received(session, data, time.monotonic_ns())
        session.send_datagram(b"pong? no")

    async with serving() as listener, probing(to(listener.port), **QUICK) as probes:
        await probes.answered()
        (connection,) = listener.connections
        counts = probes.counts().modes["datagram"]
        Tampering(connection.sessions[0], tamper)
        await until(lambda: probes.counts().duplicates >= 3)
        await until(lambda: counts.completed["malformed"] >= 3)
        assert counts.completed["lost"] == 0
        assert probes.is_up()


@pytest.mark.parametrize("is_calm", [True, False])
async def test_at_once_is_for_a_session_that_lasted(
    monkeypatch: pytest.MonkeyPatch, is_calm: bool
) -> None:
    """A server that drains every session is not run over."""
    monkeypatch.setattr(reconnect, "_STABLE", 0 if is_calm else 600)
    options = {"backoff_min": 600, "backoff_max": 600}
    async with serving() as listener, probing(to(listener.port), **options) as probes:
        await probes.answered(1)
        drain(listener)
        await probes.answered(5)
        assert probes.counts().connects["ok"] == (2 if is_calm else 1)


async def test_packets_that_the_network_delivers_twice_are_duplicates() -> None:
    """QUIC lets no copy pass, so that it says how many there were."""
    async with serving() as listener:
        with path_to(listener.port) as path:
            async with probing(to(path.port)) as probes:
                await probes.answered()
                path.copies = True
                await until(lambda: probes.counts().duplicates >= 3)
                for result in ("late", "lost", "malformed"):
                    assert probes.completed(result) == 0


# What looks like trouble of the path, or of the server, and is none; and what is of another kind.


async def test_losses_between_answers_are_no_silence() -> None:
    """However many there are between two looks at them."""
    chance = random.Random(1)
    async with serving() as server:
        with path_to(server.port) as path:
            async with probing(to(path.port), interval=0.004, timeout=0.2) as probes:
                await probes.answered(5)
                path.lose = lambda packet, to_server: len(packet) < 300 and chance.random() < 0.2
                counts = probes.counts()
                await until(lambda: counts.modes["datagram"].sent > 400)
                assert counts.modes["datagram"].completed["ok"] < 380
                assert probes.events("target_down") == []
                assert probes.metrics.outages.count == 0
                assert counts.connects["ok"] == 1


async def test_a_server_that_is_soon_tired_of_waiting_is_kept_awake() -> None:
    idle_timeout = 1.0
    async with (
        serving(idle_timeout=idle_timeout) as server,
        probing(to(server.port), interval=60) as probes,
    ):
        await until(probes.is_up)
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 2.5 * idle_timeout)
        assert probes.is_up()
        assert probes.counts().connects["ok"] == 1
        assert probes.metrics.sessions_closed["idle"] == 0


async def test_a_request_that_is_never_answered_times_out() -> None:
    class Silent(ConnectionHandler):
        def session_requested(self, session: Session) -> None:
            """Neither accepts nor rejects."""

    async with (
        serving(Silent()) as server,
        probing(to(server.port), connect_timeout=0.1) as probes,
    ):
        connects = probes.counts().connects
        await until(lambda: connects["timeout"] >= 10)
        assert connects["refused"] == 0
