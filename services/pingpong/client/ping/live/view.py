"""`pingpong ping --live`: a full-screen view that never delays a ping.

Rendering takes milliseconds, and a terminal may block output (Ctrl-S). So a thread renders and
writes a few frames a second, from data that the event loop prepares.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from rich.console import Console, Group
from rich.live import Live

from ....settings import PingSettings
from ....statistics import Answer, AnswerStatus, Latencies, Summary, minus
from ..formatting import count
from ..target_run import TargetRun, follows_answers
from .history import CAPACITY, History
from .keyboard import Keyboard
from .rendering import Frame, Row, Screen, draw

REFRESH_SECONDS = 0.25
"""Minimum seconds between frames."""
_SWITCH_SECONDS = 0.001
"""Python's switch interval while the thread renders; the default of 5 ms would delay pings."""


class LiveTarget(History):
    """The view's data of a target, since the start or the last reset."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self._times = Latencies(exact=0)
        self._baseline: Summary | None = None
        """The counts at the last reset, which are subtracted."""

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """Record its round-trip time."""
        super().answered(answer, size, is_first)
        if answer.rtt_ns is not None and answer.status in (AnswerStatus.OK, AnswerStatus.LATE):
            self._times.add(answer.rtt_ns)

    def reset(self, run: TargetRun) -> None:
        """Count from now on."""
        self.forget()
        self._times = Latencies(exact=0)
        self._baseline = run.counts()

    def row(self, run: TargetRun) -> Row:
        """The row to render."""
        counts = run.counts()
        now = time.monotonic_ns()
        outages, outage_ns = run.outages(now)
        return Row(
            label=self.label,
            state=run.link.state,
            cause=run.cause,
            seconds=max(now - run.link.availability.changed_at, 0) * 1e-9,
            counts=counts if self._baseline is None else minus(counts, self._baseline),
            times=self._times.distribution(),
            last_ns=self.last_rtt_ns,
            cells=self.last(CAPACITY),
            skipped=run.link.skipped,
            outages=outages,
            outage_ns=outage_ns,
        )


class LiveView:
    """Shows the targets while `running`; calls `quit_` when the user quits."""

    def __init__(self, settings: PingSettings, quit_: Callable[[], None]) -> None:
        self._console = Console(highlight=False)
        self._quit = quit_
        is_flood = follows_answers(settings)
        interval = "as fast as answered" if is_flood else f"every {settings.interval:g} s"
        self._what = f"{settings.mode}, {count(settings.size, 'byte')}, {interval}"
        self._targets: list[LiveTarget] = []
        self._runs: Sequence[TargetRun] = ()
        self._is_running = False
        self._keyboard = Keyboard(self._pressed)
        self._live: Live | None = None
        """The live display; None while it is hidden."""
        self._began = time.monotonic()
        self._is_frozen = False

    @property
    def is_drawable(self) -> bool:
        """Whether the terminal supports the live view."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def observer(self, label: str) -> LiveTarget:
        """Create the observer of a target."""
        target = LiveTarget(label)
        self._targets.append(target)
        return target

    @asynccontextmanager
    async def running(self, runs: Sequence[TargetRun]) -> AsyncIterator[None]:
        """Show the targets, in the order of their observers, within the context."""
        self._runs = runs
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._is_running = True
        self._show()
        drawing = asyncio.create_task(self._draw())
        drawing.add_done_callback(lambda task: self._quit())
        try:
            yield
        finally:
            self._is_running = False
            drawing.cancel()
            await asyncio.wait([drawing])
            self._hide()
            sys.setswitchinterval(switch_seconds)
            loop.remove_signal_handler(signal.SIGTSTP)
        if not drawing.cancelled():
            drawing.result()

    def continued(self) -> None:
        """The process was stopped and continued: redraw the screen."""
        if self._is_running:
            self._hide()
            self._show()

    # Private.

    def _show(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._keyboard.start()
            self._live.start()

    def _hide(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            self._keyboard.stop()
            with suppress(OSError):  # the terminal may be gone
                live.stop()

    def _suspend(self) -> None:
        """Handle Ctrl-Z: restore the terminal, then stop."""
        self._hide()
        os.kill(os.getpid(), signal.SIGSTOP)

    async def _draw(self) -> None:
        rows: list[Row] = []
        seconds = 0.0
        while True:
            began = time.monotonic()
            if not self._is_frozen:
                rows = []
                for target, run in zip(self._targets, self._runs, strict=True):
                    rows.append(target.row(run))
                    await asyncio.sleep(0)  # pings come first
                seconds = began - self._began
            live = self._live
            if live is not None:
                frame = Frame(
                    rows, self._what, seconds, self._keyboard.is_available, self._is_frozen
                )
                try:
                    await asyncio.to_thread(self._draw_frame, live, frame)
                except OSError:
                    return  # the terminal is gone
            await asyncio.sleep(max(began + REFRESH_SECONDS - time.monotonic(), 0.05))

    def _draw_frame(self, live: Live, frame: Frame) -> None:
        """Render a frame, in a thread. It uses no data that the event loop changes."""
        console = self._console
        width, height = console.size
        screen = Screen(
            width,
            height,
            has_colour=console.color_system is not None and not console.no_color,
            has_unicode=console.encoding.startswith("utf"),
        )
        live.update(Group(*draw(frame, screen)), refresh=True)

    def _pressed(self, key: str) -> None:
        if key in "qQ":
            self._quit()
        elif key in "pP ":
            self._is_frozen = not self._is_frozen
        elif key in "rR":
            for target, run in zip(self._targets, self._runs, strict=True):
                target.reset(run)
