"""How a service begins and ends: its signals, and what it does once at its start."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable

from .telemetry.logs import flush


def stop_signal(reload: Callable[[], None]) -> asyncio.Future[signal.Signals]:
    """Done at SIGTERM or SIGINT; a second one ends the process at once. SIGHUP calls `reload`."""
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
    """Have Python look for unreachable cycles seldom, and never among what is there by now.

    Connections live long, and their ends leave no cycles. To visit all that a thousand of them
    have holds up every ping by 0.1 s, and by its defaults the collector does so every few thousand
    pings. So it looks at little at a time, and at everything only when a million objects more
    are there than when it last did: those of several thousand connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 5, 100)
