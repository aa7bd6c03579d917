"""A worker process: `python -m pingpong.server.workers.child`.

`process.WorkerProcess` starts it, with the control channel as standard input, and sends it
requests. The worker ignores the signals that a terminal or a service manager sends to all
processes: the server handles them. When the channel closes, the server is gone, and the worker
exits, even if its event loop is blocked.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from ...lifecycle import collect_garbage_seldom
from ...settings import ServeSettings
from ...telemetry.logs import bind_to_all, configure, get_logger
from ...telemetry.metrics import to_json
from ...webtransport import SharedKeys
from ...webtransport.asyncio import PacketForwarder
from ...webtransport.certificates import Certificate, parse_certificate
from .. import ServeError
from .control import Channel, Message
from .worker import Worker

HEALTH_INTERVAL = 0.5
"""Seconds between reports of the worker's health."""
FAMILIES_INTERVAL = 2.0
"""Seconds between reports of its metrics: what is lost at most if it dies."""

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ORPHANED = 1
_FROM_SERVER = Path("(from the server)")


def main() -> None:
    """Run a worker until the server closes it or exits."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=end_with_server, args=(os.dup(control.fileno()),), daemon=True).start()
    uvloop.run(_Process().run(control))


def end_with_server(control: int) -> None:
    """Wait until the channel closes, then exit. It runs in a thread.

    A worker with a blocked event loop would otherwise keep the port in use.
    """
    poll = select.poll()
    poll.register(control, 0)  # a hang-up is always reported
    poll.poll()
    os._exit(_ORPHANED)


def _certificate(message: Message) -> Certificate:
    pem = message["certificate"].encode()
    return parse_certificate(pem, pem, _FROM_SERVER, _FROM_SERVER)


class _Process:
    """Handles the server's requests."""

    def __init__(self) -> None:
        self._channel: Channel
        self._worker: Worker | None = None
        self._closed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: dict[str, Callable[[Message], Awaitable[Any]]] = {
            "start": self._start,
            "families": self._families,
            "use_certificate": self._use_certificate,
            "reload": self._reload,
            "drain": self._drain,
            "close": self._close,
        }

    async def run(self, control: socket.socket) -> None:
        self._channel = await Channel.open(control)
        self._run(self._listen())
        await self._closed.wait()
        for task in self._tasks:
            task.cancel()
        await self._channel.close()

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            self._run(self._answer(message))

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        answer: Message = {"id": message["id"]}
        try:
            answer["value"] = await self._requests[message["do"]](message)
        except ServeError as error:
            answer["error"] = str(error)
        except Exception as error:
            get_logger("pingpong.server.worker").exception("request_failed", request=message["do"])
            answer["error"] = f"{type(error).__name__}: {error}"
        self._channel.send(answer)
        if message["do"] == "close":
            self._closed.set()

    async def _start(self, message: Message) -> Message:
        settings = ServeSettings.model_validate(message["settings"])
        configure(settings.log_level, settings.log_format)
        bind_to_all(worker=message["index"])
        outboxes = [socket.socket(fileno=number) for number in message["outboxes"]]
        retry, reset = (bytes.fromhex(key) for key in message["keys"])
        worker = Worker(
            settings,
            _certificate(message),
            sock=socket.socket(fileno=message["socket"]),
            forwarder=PacketForwarder(socket.socket(fileno=message["inbox"]), outboxes),
            index=message["index"],
            count=len(outboxes),
            keys=SharedKeys(retry, reset),
        )
        self._worker = worker
        await worker.start()
        collect_garbage_seldom()
        self._run(self._send_health(worker))
        self._run(self._send_families(worker))
        return {"health": worker.health().to_json()}

    async def _send_health(self, worker: Worker) -> None:
        while True:
            await asyncio.sleep(HEALTH_INTERVAL)
            if not self._channel.is_clogged:
                self._channel.send({"health": worker.health().to_json()})

    async def _send_families(self, worker: Worker) -> None:
        while True:
            await asyncio.sleep(FAMILIES_INTERVAL)
            if not self._channel.is_clogged:
                self._channel.send({"families": await _families(worker)})

    async def _families(self, message: Message) -> list[Message]:
        return await _families(self._started)

    async def _use_certificate(self, message: Message) -> None:
        self._started.use_certificate(_certificate(message))

    async def _reload(self, message: Message) -> None:
        self._started.reload()

    async def _drain(self, message: Message) -> None:
        await self._started.drain()

    async def _close(self, message: Message) -> None:
        if self._worker is not None:
            await self._worker.close()

    @property
    def _started(self) -> Worker:
        if self._worker is None:
            raise ServeError("the worker is not started yet")
        return self._worker


async def _families(worker: Worker) -> list[Message]:
    return to_json(await worker.families())


if __name__ == "__main__":
    main()
