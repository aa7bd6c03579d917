"""The server's side of a worker process. The worker's side is `child`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...settings import ServeSettings
from ...telemetry.logs import get_logger
from ...webtransport import SharedKeys
from ...webtransport.certificates import Certificate
from .. import ServeError
from ..health import Health
from .control import Channel, Message

START_TIMEOUT = 30.0
"""Seconds in which a worker must be ready."""
ANSWER_TIMEOUT = 1.0
"""Seconds to wait for the answer to a quick request."""

_PROGRAM = f"{__package__}.child"
_ROOT = Path(__file__).parents[3]


class WorkerLostError(Exception):
    """The worker exited, or does not answer."""


@dataclass(frozen=True)
class WorkerSlot:
    """What a worker takes over from the one that it replaces: index, sockets, keys."""

    index: int
    sock: socket.socket
    inbox: socket.socket
    outboxes: Sequence[socket.socket]
    keys: SharedKeys


class WorkerProcess:
    """One worker process, from its start to its end.

    Attributes, for reading only: health: its last report; None before the first one published: the
    metric families of its last report, as JSON
        ended: set when the process has ended
        status: its exit status then
    """

    def __init__(self, slot: WorkerSlot) -> None:
        self.slot = slot
        self.health: Health | None = None
        self.published: list[Message] = []
        self.ended = asyncio.Event()
        self.status: int | None = None
        self.silence = 0
        """Consecutive checks without a heartbeat: the group increments it, a message resets it."""
        self._listening = False
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._request_count = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def listening(self) -> bool:
        """Whether it is started and running."""
        return self._listening and not self.ended.is_set()

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return 0 if self._process is None else self._process.pid

    async def start(self, settings: ServeSettings, certificate: Certificate) -> None:
        """Start the process, and wait until it is ready. Raises `ServeError`."""
        slot = self.slot
        inherited = [one.fileno() for one in (slot.sock, slot.inbox, *slot.outboxes)]
        try:
            ours, its = socket.socketpair()
        except OSError as error:
            raise ServeError(f"cannot start a worker: {error.strerror or error}") from error
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _PROGRAM),
                stdin=its.fileno(),
                pass_fds=inherited,
                env=_environment(),
                # Signals of the server's terminal must not reach its workers.
                start_new_session=True,
            )
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise ServeError(f"cannot start a worker: {error.strerror or error}") from error
            raise
        finally:
            its.close()
        # First, so that its exit is noticed even if the next steps fail.
        self._tasks.append(asyncio.create_task(self._wait_end(self._process)))
        try:
            self._channel = await Channel.open(ours)
        except OSError as error:
            ours.close()
            raise ServeError(f"cannot reach a worker: {error.strerror or error}") from error
        self._tasks.append(asyncio.create_task(self._listen(self._channel)))
        try:
            listening = await self.request(
                "start",
                timeout=START_TIMEOUT,
                settings=settings.model_dump(mode="json"),
                certificate=certificate.private_pem().decode(),
                keys=[slot.keys.retry.hex(), slot.keys.reset.hex()],
                index=slot.index,
                socket=inherited[0],
                inbox=inherited[1],
                outboxes=inherited[2:],
            )
        except WorkerLostError as gone:
            raise ServeError(f"worker {slot.index} did not start: {gone}") from None
        self.health = Health.from_json(listening["health"])
        self._listening = True

    async def request(self, what: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Send a request, and wait for the answer.

        Raises `WorkerLostError`, also after `timeout` seconds, and `ServeError` if the worker
        answers with an error.
        """
        if self._channel is None or self.ended.is_set():
            raise WorkerLostError("it exited")
        self._request_count += 1
        number = self._request_count
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests[number] = answer
        self._channel.send({"id": number, "do": what, **arguments})
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise WorkerLostError(f"no answer within {timeout:g} s") from None
        finally:
            del self._requests[number]

    def notify(self, what: str, **arguments: Any) -> None:
        """Send a request without waiting for the answer."""
        if self._channel is not None and self.listening:
            self._request_count += 1
            self._channel.send({"id": self._request_count, "do": what, **arguments})

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def wait_ended(self, timeout: float) -> None:
        """Wait until the process exits, kill it after `timeout` seconds, and clean up."""
        if self._process is not None:
            try:
                async with asyncio.timeout(timeout):
                    await self.ended.wait()
            except TimeoutError:
                self.kill()
                await self.ended.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            self.silence = 0
            if "id" in message:
                self._answered(message)
            elif "health" in message:
                self.health = Health.from_json(message["health"])
            elif "families" in message:
                self.published = message["families"]

    def _answered(self, message: Message) -> None:
        answer = self._requests.get(message["id"])
        if answer is None or answer.done():
            if "error" in message:
                get_logger("pingpong.server").error(
                    "worker_failed", worker=self.slot.index, error=message["error"]
                )
        elif "error" in message:
            answer.set_exception(ServeError(message["error"]))
        else:
            answer.set_result(message["value"])

    async def _wait_end(self, process: asyncio.subprocess.Process) -> None:
        self.status = await process.wait()
        self.ended.set()
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(WorkerLostError(f"it exited with status {self.status}"))


def _environment() -> dict[str, str]:
    """This process's environment, with the path of this package if it is not installed."""
    environment = dict(os.environ)
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    if _ROOT not in installed:
        paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment
