"""The lifecycle of a service: its signals, and the setup of the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable

from .telemetry.logs import flush


def stop_signal(reload: Callable[[], None]) -> asyncio.Future[signal.Signals]:
    """A future that is done at SIGTERM or SIGINT. A second signal exits; SIGHUP calls `reload`."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def receive(number: signal.Signals) -> None:
        if received.done():
            flush()
            os._exit(128 + number)
        received.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, receive, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return received


def collect_garbage_seldom() -> None:
    """Run the garbage collector rarely, and exclude all current objects from it.

    Connections live long, and leave no reference cycles. A full collection with a thousand of them
    delays every ping by 0.1 s, and by default happens every few thousand pings. So collections are
    small, and a full one happens only after a million new objects: those of several thousand
    connections. What is garbage now stays: at a start that is 0.2 MB, and a collection takes as long
    as a tenth of the start.
    """
    gc.freeze()
    gc.set_threshold(2_000, 5, 100)
