"""What changes and breaks during a soak, each thing in a thread of its own, at random times."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.integration.flooder import KINDS
from tests.integration.services import ADMIN_PORT, PORT, Ping, Service
from tests.soak.accounts import Pings, unaccounted
from tests.soak.world import AT_REST, MODES, World
from tests.support.network.path import Impairment

_IMPAIRMENTS = (
    Impairment(loss=0.1),
    Impairment(loss=0.02, delay=0.02, jitter=0.015),
    Impairment(duplicate=0.2, reorder=0.1, hold=0.05),
    Impairment(delay=0.6),
    Impairment(blackhole=True),
)


@dataclass
class Churn:
    """Changes and breaks a world until `stop`, and then mends it."""

    world: World
    random: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    """How often each thing was done, and what visitors did."""
    pings: Pings = field(default_factory=Pings)
    """Of all `pingpong ping` together."""
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._certificate = threading.Lock()
        """Held while it is no certificate: no server can start then."""
        self._failures: list[BaseException] = []
        # In turn, so that the warm-up has all of them.
        self._kinds = itertools.cycle(KINDS)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It goes on in the block. Raises what was raised by one of its parts."""
        self._stopped.clear()
        activities: dict[Callable[[], None], float] = {
            self._certificates: 3,
            self._tokens: 3,
            self._impairments: 4,
            self._moves: 5,
            self._targets: 2,
            self._name_server: 8,
            self._slices: 2,
            self._pauses: 12,
            self._restarts: 15,
            self._pings: 0.5,
            self._floods: 4,
            self._admin_ports: 1,
        }
        threads = [
            threading.Thread(target=self._repeat, args=each, name=each[0].__name__)
            for each in activities.items()
        ]
        with self._visiting():
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._stopped.set()
                for thread in threads:
                    thread.join()
        self._mend()
        if self._failures:
            raise self._failures[0]

    def check(self) -> None:
        """Raises what was raised by one of its parts."""
        if self._failures:
            raise self._failures[0]

    def _repeat(self, activity: Callable[[], None], pause: float) -> None:
        try:
            while not self._stopped.wait(self.random.uniform(0.2, 1.8) * pause):
                activity()
                self.counts[activity.__name__.strip("_")] += 1
        except BaseException as error:
            self._failures.append(error)

    def _mend(self) -> None:
        world = self.world
        for link in world.links:
            link.impair(Impairment())
        world.names.restore()
        world.name_addresses(world.pool[:AT_REST])
        world.slice_addresses(world.pool[AT_REST : 2 * AT_REST])
        world.pair.rename_over(world.issue())

    # Files.

    def _certificates(self) -> None:
        """Renewed, and sometimes with a file that is none in between."""
        pair = self.world.pair
        way = self.random.choice((pair.write_in_place, pair.rename_over))
        with self._certificate:
            if self.random.random() < 0.2:
                (pair.folder / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\n")
                self._stopped.wait(1.5)
            way(self.world.issue())

    def _tokens(self) -> None:
        self.world.renew_token(self._stopped.wait)

    # The network.

    def _impairments(self) -> None:
        link = self.random.choice(self.world.links)
        link.impair(self.random.choice(_IMPAIRMENTS))
        self._stopped.wait(self.random.uniform(1, 4))
        link.impair(Impairment())

    def _moves(self) -> None:
        self.random.choice(self.world.links).move()

    # Targets.

    def _some(self) -> list[str]:
        """Some addresses, perhaps none."""
        return self.random.sample(self.world.pool, self.random.randrange(len(self.world.pool)))

    def _targets(self) -> None:
        self.world.name_addresses(self._some())

    def _slices(self) -> None:
        self.world.slice_addresses(self._some())
        if self.random.random() < 0.2:
            self.world.api.end_watches(abruptly=self.random.random() < 0.5)

    def _name_server(self) -> None:
        names = self.world.names
        if self.random.random() < 0.5:
            names.silence()
        else:
            names.fail("*", "SERVFAIL")
        self._stopped.wait(self.random.uniform(0.5, 3))
        names.restore()

    # Processes.

    def _pauses(self) -> None:
        """A server, or a probe, that does not get to run for a while."""
        service = self.random.choice([self.world.steady, self.world.restarted, self.world.fixed])
        with contextlib.suppress(ProcessLookupError):
            service.send(signal.SIGSTOP)
            self._stopped.wait(self.random.uniform(0.2, 2.5))
            service.send(signal.SIGCONT)

    def _restarts(self) -> None:
        self.world.end_restarted(in_order=self.random.random() < 0.5)
        self._stopped.wait(self.random.uniform(0, 2))
        with self._certificate:
            self.world.start_restarted()

    # Clients.

    def _pings(self) -> None:
        """A `pingpong ping`, which is asked what became of its pings, or is killed."""
        world = self.world
        url = self.random.choice((world.steady.url, world.workers.url, world.links[0].url))
        words = ("-c30", "-i0.02", "-W0.5", f"--mode={self.random.choice(MODES)}", "-w6")
        trust = (f"--ca={world.authority.file}", f"--token-file={world.token_files[1]}")
        with Ping(url, *words, *trust) as ping:
            if self.random.random() < 0.2:
                self._stopped.wait(self.random.uniform(0.5, 1.0))
                ping.kill()
                return
            ping.finish()
            if not any('"sent"' in line for line in ping.out):
                return  # It could not connect.
            report = ping.report()
        sums = Pings(
            report["sent"],
            report["received"] - report["late"],
            report["late"],
            report["lost"],
            report["malformed"],
            report["send_errors"],
        )
        self.complaints += unaccounted(f"ping {' '.join(words)}", sums)
        self.pings += sums

    @contextlib.contextmanager
    def _visiting(self) -> Iterator[None]:
        world = self.world
        urls = (world.steady.url, world.workers.url, world.links[0].url)
        words = (*urls, "--token-file", str(world.token_files[1]))
        with Service(sys.executable, "-m", "tests.soak.visits", *words) as visitors:
            try:
                yield
            finally:
                visitors.send(signal.SIGTERM)
                assert visitors.finish() == 0, repr(visitors)
            self.counts.update(json.loads(visitors.out[-1]))

    def _floods(self) -> None:
        """Handshakes that nobody finishes, and garbage; more than are taken without a Retry."""
        words = (next(self._kinds), self.world.steady.address, str(PORT), "300", "0.5")
        with Service(sys.executable, "-m", "tests.integration.flooder", *words) as flood:
            assert flood.finish() == 0, repr(flood)

    def _admin_ports(self) -> None:
        """Scrapes, requests that are cut off, requests that are none, and silence."""
        service = self.random.choice(list(self.world.watched.values()))
        with contextlib.suppress(OSError, http.client.HTTPException):
            match self.random.randrange(4):
                case 0:
                    service.ask(self.random.choice(("/metrics", "/config", "/readyz?verbose")))
                case 1:
                    self._say(service, b"GET /metrics HTTP/1.1\r\nHost: me\r\n\r\n")
                case 2:
                    self._say(service, os.urandom(300))
                case 3:
                    self._say(service, b"GET /livez HTT")

    def _say(self, service: Service, words: bytes) -> None:
        with socket.create_connection((service.admin, ADMIN_PORT), timeout=5) as connection:
            connection.sendall(words)
            self._stopped.wait(0.2)
