"""Observers that write: a line for each answer and each thing that goes wrong, or dots."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...link import Peer
from ...ping import Mode
from ...settings import PingSettings
from ...statistics import Answer, AnswerStatus
from .json_report import JsonReport
from .observer import Display
from .report import TextReport
from .results import ShownOutage

Write = Callable[[str | None], None]
"""Takes a line, or None where there is nothing to say."""


class TextLines(Display):
    """Lines for a person."""

    def __init__(self, report: TextReport, write: Write, settings: PingSettings) -> None:
        self._report = report
        self._write = write
        self._settings = settings
        self._peer: Peer

    def connected(self, peer: Peer) -> None:
        """Write whom the answers will come from."""
        self._peer = peer
        self._write(self._report.connected(peer, self._settings.mode, self._settings.size))

    def recovered(self, peer: Peer, outage: ShownOutage) -> None:
        """Write how long it took."""
        self._peer = peer
        self._write(self._report.recovered(peer, outage, at_ns=self._now()))

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        """Write where to."""
        self._peer = peer
        self._write(self._report.moved(peer, at_ns=self._now()))

    def draining(self) -> None:
        """Write what the server asked for."""
        self._write(self._report.draining(at_ns=self._now()))

    def down(self, cause: str) -> None:
        """Write why."""
        self._write(self._report.lost(cause, at_ns=self._now()))

    def failed(self, cause: str) -> None:
        """Write why."""
        self._write(self._report.failed(cause, at_ns=self._now()))

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """Write why."""
        self._write(self._report.not_sent(seq, reason, at_ns=self._now()))

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """Write the answer's line."""
        self._write(self._report.answer(self._peer, answer, size, at_ns=self._now()))

    def unanswered(self, seq: int, *, final: bool) -> None:
        """Write its number."""
        self._write(self._report.no_answer(seq, final=final, at_ns=self._now()))

    def skipped(self, slots: int) -> None:
        """Write how many."""
        self._write(self._report.skipped(slots, at_ns=self._now()))

    def _now(self) -> int | None:
        return time.time_ns() if self._settings.timestamps else None


class Dots(TextLines):
    """A dot for each ping and a backspace for each answer, as ping(8) -f: what stays is missing.

    What goes wrong with the connection is written as in `TextLines`, on a line of its own.
    """

    def __init__(
        self, report: TextReport, write: Write, draw: Write, settings: PingSettings
    ) -> None:
        super().__init__(report, self._write_line, settings)
        self._write_below = write
        self._draw_now = draw
        self._is_in_line = False

    def _write_line(self, text: str | None) -> None:
        if text is not None and self._is_in_line:
            self._is_in_line = False
            self._draw_now("\n")
        self._write_below(text)

    def _draw(self, text: str) -> None:
        self._is_in_line = True
        self._draw_now(text)

    def sent(self, seq: int, mode: Mode) -> None:
        """Draw a dot."""
        self._draw(".")

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """Take a dot back; copies of an answer have none."""
        if answer.status in (AnswerStatus.OK, AnswerStatus.LATE):
            self._draw("\b \b")

    def unanswered(self, seq: int, *, final: bool) -> None:
        """The dot that stays says so."""

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """Draw ping(8)'s mark of an error."""
        self._draw("E")

    def unconnected(self, seq: int, mode: Mode) -> None:
        """Draw ping(8)'s mark of an error."""
        self._draw("E")


class JsonLines(Display):
    """Lines for a program, and beside them what goes wrong for a person."""

    def __init__(
        self,
        report: JsonReport,
        beside: TextReport,
        write: Write,
        complain: Write,
        settings: PingSettings,
    ) -> None:
        self._report = report
        self._beside = beside
        self._write = write
        self._complain = complain
        self._timestamps = settings.timestamps
        self._peer: Peer

    def connected(self, peer: Peer) -> None:
        """Writes nothing: each reply and the summary have it."""
        self._peer = peer

    def recovered(self, peer: Peer, outage: ShownOutage) -> None:
        """Say how long it took."""
        self._peer = peer
        self._complain(self._beside.recovered(peer, outage))

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        """Nothing is said: each reply tells who answers."""
        self._peer = peer

    def down(self, cause: str) -> None:
        """Say why."""
        self._complain(self._beside.lost(cause))

    def failed(self, cause: str) -> None:
        """Say why."""
        self._complain(self._beside.failed(cause))

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """Write the answer's object."""
        at_ns = time.time_ns() if self._timestamps else None
        self._write(self._report.answer(self._peer, answer, size, at_ns=at_ns))
