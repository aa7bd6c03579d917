"""`pingpong ping`: one target or several, a person watching."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from ...link import IDLE_TIMEOUT, ConnectTimes, Dialer, LinkError, Until
from ...settings import PingSettings
from ...settings.command_line import named
from ...statistics import Summary
from ...webtransport import mask_url
from ...webtransport.asyncio import EndpointConfig
from ..authorization import authorization
from ..output import Output, terminal
from ..target import target_of
from .advice import with_advice
from .json_report import JsonReport
from .labels import labels, titles
from .lines import Dots, JsonLines, TextLines
from .observer import Display
from .report import TextReport
from .results import RunSummary, unconnected
from .target_run import TargetRun
from .targets import OneAddress, SystemLookup, all_addresses, check_ca_file

LOOKUP_INTERVAL = 3.0
"""Seconds after which a name is looked up again, while what it led to is pinged."""
TARGETS_APART = 0.01
"""Seconds from one target's ping to the next one's, at most: together they would wait for each
other here, and look slow."""

EXIT_OK = 0
EXIT_NO_ANSWER = 1
EXIT_ERROR = 2


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A target as it was asked for."""

    url: str
    shown_url: str
    label: str
    """Which of several it is; empty where there is one."""
    address: OneAddress | None = None
    """To connect to; None: whatever the name leads to."""
    error: LinkError | None = None
    """Why it cannot be pinged."""

    @property
    def title(self) -> str:
        """What it is called in full."""
        if self.address is None:
            return self.shown_url
        return f"{self.shown_url} {self.address.entry[1][0]}"


class View(Protocol):
    """What shows all targets at once."""

    def observer(self, label: str) -> Display:
        """What shows one of them."""

    def running(self, runs: Sequence[TargetRun]) -> AbstractAsyncContextManager[object]:
        """Show these, in the order of their observers, as long as the context is entered."""

    def continued(self) -> None:
        """The process was stopped, and goes on."""


class PingCommand:
    """A run of `pingpong ping`, from the first packet to the exit status.

    `idle_timeout` is this side's, in seconds. Without `reconnect` the end of a session is the end
    of its target's run.
    """

    def __init__(
        self,
        settings: PingSettings,
        output: Output,
        *,
        idle_timeout: float = IDLE_TIMEOUT,
        reconnect: bool = True,
    ) -> None:
        self._settings = settings
        self._output = output
        timeout = settings.connect_timeout
        self._dialer = Dialer(
            timeout=min(timeout, settings.deadline or timeout),
            headers=partial(authorization, settings.token_file),
            idle_timeout=idle_timeout,
            config=EndpointConfig(engine=settings.engine),
        )
        self._until = Until.STOPPED if settings.live else Until.NOT_CONNECTED
        if not reconnect:
            self._until = Until.SESSION_ENDED
        self._wanted: list[_Wanted] = []
        self._runs: list[TargetRun | None] = []
        """One for each target; None for those that cannot be pinged."""
        self._text: list[TextReport] = []
        self._json: list[JsonReport] = []
        self._view: View | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stop: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        """Done when pinging is to end: with a cause where something went wrong here."""
        self._has_written = False
        self._over = False
        """Whether the summary is out: nothing more is to be said."""
        self._began_ns = time.monotonic_ns()

    async def run(self) -> int:
        """Connect, ping, sum up. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, None)
        if self._settings.live and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGHUP, self._end, None)  # leaves the terminal as it was
        loop.add_signal_handler(signal.SIGQUIT, self._interim)
        loop.add_signal_handler(signal.SIGCONT, self._continued)
        if (mistake := check_ca_file(self._settings) or self._open_view()) is not None:
            self._output.complain(mistake)
            return EXIT_ERROR
        if not await self._until_stopped(asyncio.ensure_future(self._find_targets())):
            self._list_targets()
            self._add_reports()
            self._runs = [None] * len(self._wanted)
            return self._sum_up()
        self._add_reports()
        self._runs = [self._make_run(index, wanted) for index, wanted in enumerate(self._wanted)]
        try:
            return await self._ping()
        finally:
            self._over = True
            if self._deadline is not None:
                self._deadline.cancel()
            await asyncio.gather(*(run.close() for run in self._runs if run is not None))

    # The steps.

    def _open_view(self) -> str | None:
        """Make ready to show all targets in place. Returns what forbids that, for people."""
        if not self._settings.live:
            return None
        if self._output.draw is None:
            return (
                f"{named('live')} draws in a terminal, and the output goes elsewhere: leave it out"
            )
        from .live.view import LiveView  # rich is not imported for nothing

        view = LiveView(self._settings, quit_=lambda: self._end(None))
        if not view.is_drawable:
            return (
                f"{named('live')} needs a terminal that can be drawn in: leave it out, or set TERM"
            )
        self._view = view
        return None

    async def _find_targets(self) -> None:
        """List the targets: the URLs, or with --all every address of each."""
        settings = self._settings
        urls = settings.targets
        names = labels(urls)
        if not settings.all:
            self._list_targets()
            return
        targets = [target_of(url, settings) for url in urls]
        found = await asyncio.gather(
            *(all_addresses(target, settings.connect_timeout) for target in targets)
        )
        for url, shown, name, addresses in zip(urls, titles(urls), names, found, strict=True):
            if isinstance(addresses, LinkError):
                self._wanted.append(_Wanted(url, shown, name, error=addresses))
                continue
            for one in addresses:
                address = str(one.entry[1][0])
                label = name if name == address else f"{name} ({address})"
                self._wanted.append(_Wanted(url, shown, label, one))

    def _list_targets(self) -> None:
        """List the URLs as they are."""
        urls = self._settings.targets
        several = len(urls) > 1
        self._wanted = [
            _Wanted(url, shown, name if several else "")
            for url, shown, name in zip(urls, titles(urls), labels(urls), strict=True)
        ]

    def _add_reports(self) -> None:
        width = max(len(wanted.label) for wanted in self._wanted)
        for wanted in self._wanted:
            self._text.append(TextReport(wanted.title, wanted.label, width))
            self._json.append(JsonReport(mask_url(wanted.url), wanted.label))

    def _make_run(self, index: int, wanted: _Wanted) -> TargetRun | None:
        settings = self._settings
        apart = min(TARGETS_APART, settings.interval / len(self._wanted))
        if wanted.error is not None:
            return None
        text = self._text[index]
        target = target_of(wanted.url, settings)
        return TargetRun(
            target.host,
            wanted.address or SystemLookup(target),
            self._dialer,
            settings,
            self._observer(text, self._json[index], wanted.label or labels([wanted.url])[0]),
            started=self._started,
            until=self._until,
            offset=index * apart,
            lookup_interval=None if wanted.address is not None else LOOKUP_INTERVAL,
        )

    def _observer(self, text: TextReport, objects: JsonReport, label: str) -> Display:
        settings, output = self._settings, self._output
        if self._view is not None:
            return self._view.observer(label)
        if settings.quiet:
            return Display()
        if settings.json_lines and not settings.flood:
            return JsonLines(objects, text, self._print, self._complain, settings)
        if not settings.flood:
            return TextLines(text, self._print, settings)
        if output.draw is not None and not settings.json_lines:
            return Dots(text, self._print, self._draw, settings)
        return Display()

    async def _ping(self) -> int:
        tasks = []
        for wanted, run in zip(self._wanted, self._runs, strict=True):
            if run is None:
                self._report_error(wanted, wanted.error)
            else:
                tasks.append(asyncio.create_task(self._ping_one(wanted, run)))
        runs = [run for run in self._runs if run is not None]
        view = nullcontext() if self._view is None else self._view.running(runs)
        everything = asyncio.ensure_future(asyncio.gather(*tasks))
        async with view:
            await self._until_stopped(everything)
        return self._sum_up()

    async def _ping_one(self, wanted: _Wanted, run: TargetRun) -> None:
        await run.run()
        self._report_error(wanted, run.error)

    def _report_error(self, wanted: _Wanted, error: LinkError | None) -> None:
        """With several targets, write what went wrong with one when it does."""
        if error is not None and len(self._runs) > 1 and self._view is None:
            self._complain(f"{wanted.title}: {with_advice(error, self._settings)}")

    def _sum_up(self) -> int:
        summaries = [
            self._not_begun(wanted) if run is None else run.finish()
            for wanted, run in zip(self._wanted, self._runs, strict=True)
        ]
        alone = len(summaries) == 1
        for index, summary in enumerate(summaries):
            # A program reads one summary of each target, whatever became of it.
            is_shown = summary.error is None or summary.peer is not None
            if is_shown or not alone or self._settings.json_lines:
                self._print_summary(index, summary)
        self._over = True
        if self._stop.done() and (cause := self._stop.result()) is not None:
            self._output.complain(cause)
            return EXIT_ERROR
        if alone and summaries[0].error is not None:
            self._output.complain(f"{self._wanted[0].title}: {summaries[0].error}")
        return max(self._status(summary) for summary in summaries)

    def _status(self, summary: RunSummary) -> int:
        if summary.error is not None:
            return EXIT_ERROR
        wanted = self._settings.count if self._settings.deadline is not None else None
        return EXIT_OK if summary.pings.received >= (wanted or 1) else EXIT_NO_ANSWER

    def _not_begun(self, wanted: _Wanted) -> RunSummary:
        nothing = RunSummary(Summary(), None, ConnectTimes(), connections=0)
        if wanted.error is not None:
            return replace(nothing, error=with_advice(wanted.error, self._settings))
        return replace(nothing, unconnected=unconnected(time.monotonic_ns() - self._began_ns, ()))

    # What happens meanwhile.

    def _started(self) -> None:
        """The first attempt to connect is over, of whichever target: from now on time counts."""
        deadline = self._settings.deadline
        if deadline is not None and self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(deadline, self._end, None)

    def _interim(self) -> None:
        if self._over or self._view is not None:
            return
        for index, run in enumerate(self._runs):
            if run is not None and run.link.peer is not None:
                self._print_summary(index, run.summary())

    def _continued(self) -> None:
        if self._view is not None:
            self._view.continued()
        for run in self._runs:
            if run is not None:
                run.continued()

    def _end(self, cause: str | None) -> None:
        if not self._stop.done():
            self._stop.set_result(cause)

    async def _until_stopped(self, work: asyncio.Future[Any]) -> bool:
        """Whether it came to its end before it was stopped. Raises what it raised."""
        either: list[asyncio.Future[Any]] = [work, self._stop]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return True
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return False

    # Output.

    def _print(self, text: str | None) -> None:
        if text is not None:
            self._emit(self._output.write, text)

    def _draw(self, text: str | None) -> None:
        if text is not None and self._output.draw is not None:
            self._emit(self._output.draw, text)

    def _emit(self, how: Callable[[str], None], text: str) -> None:
        if self._over:
            return
        self._has_written = True
        try:
            how(text)
        except OSError as error:
            self._over = True
            gone = isinstance(error, BrokenPipeError)
            self._end(None if gone else f"cannot write: {(error.strerror or str(error)).lower()}")

    def _complain(self, text: str | None) -> None:
        if text is not None and not self._over:
            self._output.complain(text)

    def _print_summary(self, index: int, summary: RunSummary) -> None:
        if self._settings.json_lines:
            self._print(self._json[index].summary(summary))
            return
        text = self._text[index].summary(summary)
        # A line apart from what stands above it.
        self._print(f"\n{text}" if self._has_written else text)


async def ping(settings: PingSettings) -> int:
    """Run the command. Returns the exit status."""
    return await PingCommand(settings, terminal()).run()
