"""Metrics as text, by prometheus_client's encoders: Prometheus's format 0.0.4, and OpenMetrics 1.0.

A text is made piece by piece, so that a scrape of a hundred targets does not delay packets.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from prometheus_client import Metric, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

_CHUNK = 65_536
"""Bytes of a chunk, at least."""


class Format(enum.Enum):
    """A format of metrics; its value is the content type."""

    TEXT = exposition.CONTENT_TYPE_PLAIN_0_0_4
    OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


_ENCODERS: dict[Format, Callable[[Collector], bytes]] = {
    Format.TEXT: exposition.generate_latest,
    # All names here are valid. To escape them, character by character, takes a third of the time.
    Format.OPENMETRICS: partial(openmetrics.generate_latest, escaping=openmetrics.ALLOWUTF8),
}


def choose_format(accept: str) -> Format:
    """The format that prometheus_client chooses for an Accept header; by default text.

    Versions and escapings are ignored: at most two formats are made at a time.
    """
    try:
        _, content_type = exposition.choose_encoder(accept.lower())
    except TypeError:  # a version that is not a number
        return Format.TEXT
    is_openmetrics = content_type.startswith("application/openmetrics-text")
    return Format.OPENMETRICS if is_openmetrics else Format.TEXT


@dataclass(frozen=True, slots=True)
class _Registry(Collector):
    """Passes metrics to an encoder."""

    metrics: Iterable[Metric] = ()

    def collect(self) -> Iterable[Metric]:
        return self.metrics


class Text:
    """A text to which metrics are added one at a time; with `compressed` as gzip."""

    def __init__(self, format: Format, *, compressed: bool) -> None:
        self._encode = _ENCODERS[format]
        self._end = self._encode(_Registry())
        # Even the lowest level reduces metrics to a twentieth, and takes less time than sending
        # them uncompressed.
        self._compress = zlib.compressobj(level=1, wbits=31) if compressed else None
        self._last = ""
        self._chunks: list[bytes] = []
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, metric: Metric) -> None:
        """Write a metric; if it has the name of the last one, only its series."""
        text = self._encode(_Registry([metric])).removesuffix(self._end)
        if metric.name == self._last:
            _help, _type, text = text.split(b"\n", 2)
        self._last = metric.name
        self._write(text)

    def finish(self) -> list[bytes]:
        """The whole text, in chunks."""
        self._write(self._end)
        if self._compress:
            self._pieces.append(self._compress.flush())
        return [*self._chunks, b"".join(self._pieces)]

    def _write(self, text: bytes) -> None:
        self._pieces.append(self._compress.compress(text) if self._compress else text)
        self._size += len(self._pieces[-1])
        if self._size >= _CHUNK:
            self._chunks.append(b"".join(self._pieces))
            self._pieces.clear()
            self._size = 0
