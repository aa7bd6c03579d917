"""What looks like trouble of the path, or of the server, and is none; and what is of another kind."""

from __future__ import annotations

import random
import time

from pingpong.webtransport import ConnectionHandler
from pingpong.webtransport.session import Session
from tests.client.ping.commands import serving
from tests.client.probe.probing import path_to, probing, to, until


async def test_losses_between_answers_are_no_silence() -> None:
    """However many there are between two looks at them."""
    chance = random.Random(1)
    async with serving() as server:
        with path_to(server.port) as path:
            async with probing(to(path.port), interval=0.004, timeout=0.2) as prober:
                await prober.answered(5)
                path.lose = lambda packet, to_server: len(packet) < 300 and chance.random() < 0.2
                counts = prober.counts()
                await until(lambda: counts.modes["datagram"].sent > 400)
                assert counts.modes["datagram"].completed["ok"] < 380
                assert prober.events("target_down") == []
                assert prober.metrics.outages.count == 0
                assert counts.connects["ok"] == 1


async def test_a_server_that_is_soon_tired_of_waiting_is_kept_awake() -> None:
    idle_timeout = 1.0
    async with (
        serving(idle_timeout=idle_timeout) as server,
        probing(to(server.port), interval=60) as prober,
    ):
        await until(prober.is_up)
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 2.5 * idle_timeout)
        assert prober.is_up()
        assert prober.counts().connects["ok"] == 1
        assert prober.metrics.sessions_closed["idle"] == 0


async def test_a_request_that_is_never_answered_times_out() -> None:
    class Silent(ConnectionHandler):
        def session_requested(self, session: Session) -> None:
            """Neither accepts nor rejects."""

    async with (
        serving(Silent()) as server,
        probing(to(server.port), connect_timeout=0.1) as prober,
    ):
        connects = prober.counts().connects
        await until(lambda: connects["timeout"] >= 10)
        assert connects["refused"] == 0
