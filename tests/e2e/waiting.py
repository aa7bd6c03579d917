"""Waiting for what a cluster does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], *, timeout: float, what: str, interval: float = 0.2
) -> T:
    """Ask again and again until what `condition` returns is true, and return that.

    An AssertionError in it, and an error of the API or on the way to it, mean "not yet" as well.
    Raises AssertionError after `timeout` seconds: it names `what` was waited for, and says what
    was seen last.
    """
    began = time.monotonic()
    while True:
        asked_at = time.monotonic()
        try:
            seen = condition()
            if seen:
                return seen
            last = repr(seen)
        except (AssertionError, ApiException, HTTPError) as error:
            last = f"{type(error).__name__}: {error}"
        if asked_at - began >= timeout:
            raise AssertionError(f"not in {timeout:g} s: {what}; last seen: {last}")
        time.sleep(interval)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self._began
