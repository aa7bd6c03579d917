"""`pingpong ping`: one target, a person watching."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from collections.abc import Coroutine
from typing import Any

from cryptography import x509

from ..ops.settings import PingSettings
from ..ping import PROTOCOL
from ..webtransport.asyncio import (
    Cause,
    ClientConnection,
    ConnectError,
    EndpointConfig,
    Target,
    open_connection,
)
from ..webtransport.asyncio.client import establish
from ..webtransport.config import Windows
from ..webtransport.errors import StateError
from ..webtransport.events import SessionClosed
from . import report as reports
from .output import Output, terminal
from .pinger import Pinger, SendError
from .schedule import Schedule
from .statistics import Outcome, Statistics, Summary

EXIT_OK = 0
EXIT_NO_ANSWER = 1
EXIT_ERROR = 2

IDLE_TIMEOUT = 15.0
"""Seconds that this side waits for any word of the server; its own timeout may be shorter."""
_KEEP_ALIVES = 3
"""Packets that the server is sent in that time, at least."""
_GONE_AFTER = 0.5
"""Seconds through which a "connection refused" must come back before it is believed.

It can be forged, but then the server answers in between, and nothing is sent again.
"""
_GOODBYE = 1.0
"""Seconds that the server has to hear of our end, at most."""
_NANOSECONDS = 1_000_000_000

ADVICE = {
    Cause.NAME: "check the name, or give an address",
    Cause.NO_ANSWER: "a firewall between here and there that drops UDP, or a wrong port?",
    Cause.UNREACHABLE: "nothing listens there: a wrong port, or the server is down",
    Cause.CERTIFICATE: "give --ca FILE for its authority, --cert-hash for exactly this one,"
    " or --insecure for a test",
    Cause.ALPN: "that is another protocol's port: WebTransport needs HTTP/3",
    Cause.REFUSED: "the server's log says more",
    Cause.NO_WEBTRANSPORT: "that server speaks HTTP/3, but not WebTransport: another port or host?",
    Cause.STATUS: "is the path right? pingpong answers on /ping",
    Cause.SESSION: "the server's log says more",
}


def target_of(settings: PingSettings) -> Target:
    """Where the settings point to, and what they insist on there."""
    family = socket.AF_UNSPEC
    if settings.ipv4:
        family = socket.AF_INET
    elif settings.ipv6:
        family = socket.AF_INET6
    return Target.from_url(
        settings.url,
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
        certificate_hash=settings.cert_hash,
        insecure=settings.insecure,
        family=family,
    )


def check_ca_file(settings: PingSettings) -> str | None:
    """What is wrong with the file of authorities, if there is one; a sentence for people."""
    file = settings.ca_file
    if file is None:
        return None
    try:
        x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        return f"cannot read the file {file}: {(error.strerror or str(error)).lower()} (--ca)"
    except ValueError:
        return f"no certificate of an authority, in PEM, can be read in {file} (--ca)"
    return None


def describe_end(closed: SessionClosed) -> str:
    """Why a session that was established is over, for people."""
    if closed.code is None or not closed.by_peer:
        return str(closed)
    code = f" (code {closed.code})" if closed.code else ""
    reason = f": {closed.reason}" if closed.reason else ""
    return f"the server closed the session{code}{reason}"


class PingCommand:
    """A run of `pingpong ping`, from the first packet to the exit status.

    `idle_timeout` is this side's, in seconds.
    """

    def __init__(
        self, settings: PingSettings, output: Output, *, idle_timeout: float = IDLE_TIMEOUT
    ) -> None:
        self._settings = settings
        self._output = output
        self._idle_timeout = idle_timeout
        self._target = target_of(settings)
        self._client: ClientConnection
        self._pinger: Pinger
        self._report: reports.Report
        self._times: reports.ConnectTimes
        self._schedule: Schedule | None = None
        """Of the pings; None before the first."""
        self._stop: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        """Done when pinging is to end: with a cause where something ended it."""
        self._seq = 0
        self._sent_at = 0.0
        self._refused_at: float | None = None
        """When "connection refused" came first since the last answer."""
        self._is_gone = False
        """Whether there is nobody to say goodbye to."""
        self._over = False
        """Whether the summary is out: nothing more is to be said."""
        self._progress = asyncio.Event()

    async def run(self) -> int:
        """Connect, ping, sum up. Returns the exit status."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, None)
        loop.add_signal_handler(signal.SIGQUIT, self._interim)
        if (mistake := check_ca_file(settings)) is not None:
            self._output.complain(mistake)
            return EXIT_ERROR
        try:
            await self._until_stopped(self._connect())
        except ConnectError as error:
            self._output.complain(f"{settings.url}: {error} ({ADVICE[error.cause]})")
            return EXIT_ERROR
        except StateError as error:
            self._output.complain(f"{settings.url}: no session was opened: {error}")
            return EXIT_ERROR
        if self._schedule is None:
            return EXIT_NO_ANSWER
        try:
            return await self._ping()
        finally:
            self._over = True
            await self._client.close(timeout=0 if self._is_gone else _GOODBYE)

    # The steps.

    async def _connect(self) -> None:
        settings = self._settings
        config = EndpointConfig(idle_timeout=self._idle_timeout, windows=Windows(streams_uni=1024))
        timeout = min(settings.connect_timeout, settings.deadline or settings.connect_timeout)
        client = await open_connection(self._target, config=config, timeout=timeout)
        pinger = Pinger(
            settings.mode,
            settings.size,
            lambda is_v1: Statistics(int(settings.timeout * _NANOSECONDS), directions=is_v1),
            flush=client.endpoint.flush,
            answer=self._answered,
            closed=self._session_closed,
        )
        try:
            session = await establish(client, pinger, protocols=(PROTOCOL,), timeout=timeout)
        except BaseException:
            await client.close()
            raise
        client.socket_error = self._socket_error
        timings = client.timings
        self._times = reports.ConnectTimes(timings.resolve, timings.handshake, timings.session)
        target = reports.Target(
            url=settings.url,
            address=client.address[0],
            mode=settings.mode,
            size=settings.size,
            protocol=session.protocol,
            draft=str(session.connection.session_draft),
        )
        self._report = (
            reports.JsonReport(target) if settings.json_lines else reports.TextReport(target)
        )
        self._client = client
        self._pinger = pinger
        self._schedule = Schedule(time.monotonic(), settings.interval)

    async def _ping(self) -> int:
        settings = self._settings
        if not settings.quiet:
            self._print(self._report.start())
        helpers = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_alive())]
        timer = None
        if settings.deadline is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(settings.deadline, self._end, None)
        try:
            await self._until_stopped(self._send_all())
        finally:
            if timer is not None:
                timer.cancel()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        # An answer that is here already counts, whoever was quicker.
        self._client.endpoint.pump.receive_pending()
        return self._sum_up()

    async def _send_all(self) -> None:
        """Send on absolute deadlines, whatever becomes of the answers; then wait for the last."""
        settings = self._settings
        schedule = self._schedule
        assert schedule is not None
        while settings.count is None or self._seq < settings.count:
            # Also where the time has come already: others are to have their turn.
            await asyncio.sleep(max(schedule.next - time.monotonic(), 0))
            self._sent_at = time.monotonic()
            schedule.take(self._sent_at)
            self._seq += 1
            try:
                self._pinger.send(self._seq)
            except SendError as error:
                if not settings.quiet:
                    self._print(self._report.not_sent(self._seq, str(error), at_ns=self._stamp()))
            self._progress.set()
        while self._pinger.statistics.deadline is not None:
            self._progress.clear()
            await self._progress.wait()

    async def _watch(self) -> None:
        """Say which pings have had no answer in time."""
        statistics = self._pinger.statistics
        while True:
            deadline = statistics.deadline
            if deadline is None:
                self._progress.clear()
                await self._progress.wait()
                continue
            delay = deadline / _NANOSECONDS - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            # An answer may be in the socket already: it is in time if it arrived in time.
            self._client.endpoint.pump.receive_pending()
            for seq in statistics.expire(time.monotonic_ns()):
                if not self._settings.quiet:
                    self._print(self._report.no_answer(seq, at_ns=self._stamp()))
            self._progress.set()

    async def _keep_alive(self) -> None:
        """Keep the connection from idling out where pings, or answers, take long to come."""
        while True:
            delay = self._sent_at + self._idle_timeout / _KEEP_ALIVES - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            else:
                self._client.connection.quic.ping()
                self._sent_at = time.monotonic()

    def _sum_up(self) -> int:
        summary = self._pinger.statistics.summary(time.monotonic_ns())
        self._print_summary(summary)
        self._over = True
        cause = self._stop.result() if self._stop.done() else None
        if cause is not None:
            self._output.complain(f"{self._settings.url}: {cause}")
            return EXIT_ERROR
        wanted = self._settings.count if self._settings.deadline is not None else None
        return EXIT_OK if summary.received >= (wanted or 1) else EXIT_NO_ANSWER

    # What happens meanwhile.

    def _answered(self, outcome: Outcome, size: int) -> None:
        self._refused_at = None
        self._progress.set()
        if not self._settings.quiet:
            self._print(self._report.answer(outcome, size, at_ns=self._stamp()))

    def _session_closed(self, closed: SessionClosed) -> None:
        self._end(describe_end(closed))

    def _socket_error(self, error: OSError) -> None:
        if error.errno != errno.ECONNREFUSED:
            return  # A network that is down may come back, and the connection with it.
        now = time.monotonic()
        if self._refused_at is None:
            self._refused_at = now
        elif now - self._refused_at > _GONE_AFTER:
            self._is_gone = True
            self._end("the server is gone: nothing listens on its port any more")

    def _interim(self) -> None:
        if self._schedule is not None and not self._over:
            self._print_summary(self._pinger.statistics.summary(time.monotonic_ns()))

    def _end(self, cause: str | None) -> None:
        if not self._stop.done():
            self._stop.set_result(cause)

    async def _until_stopped(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        either: list[asyncio.Future[Any]] = [task, self._stop]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            task.result()

    # Output.

    def _print(self, text: str | None) -> None:
        if text is None or self._over:
            return
        try:
            self._output.write(text)
        except OSError as error:
            self._over = True
            gone = isinstance(error, BrokenPipeError)
            self._end(None if gone else f"cannot write: {(error.strerror or str(error)).lower()}")

    def _print_summary(self, summary: Summary) -> None:
        skipped = self._schedule.skipped if self._schedule is not None else 0
        text = self._report.summary(
            summary, self._times, skipped=skipped, malformed=self._pinger.malformed
        )
        if text is not None and not self._settings.json_lines and not self._settings.quiet:
            text = f"\n{text}"
        self._print(text)

    def _stamp(self) -> int | None:
        return time.time_ns() if self._settings.timestamps else None


async def ping(settings: PingSettings) -> int:
    """Run the command. Returns the exit status."""
    return await PingCommand(settings, terminal()).run()
