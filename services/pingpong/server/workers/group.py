"""A group of worker processes on one UDP port, with the interface of one worker."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from prometheus_client import Metric

from ...settings import ServeSettings
from ...telemetry.health import Result
from ...telemetry.logs import get_logger
from ...telemetry.metrics import from_json, merge
from ...webtransport.asyncio import bind_group, create_inboxes, steer
from ...webtransport.certificates import Certificate
from .. import ServeError, metrics
from ..health import SELF_PING, WORKERS, Health, combine, while_draining
from .endpoint import listen_failure, shared_keys
from .process import ANSWER_TIMEOUT, WorkerLostError, WorkerProcess, WorkerSlot

HEARTBEAT_TIMEOUT = 5
"""Seconds without a heartbeat after which a worker makes the group unhealthy."""
KILL_AFTER = 30
"""Seconds without a heartbeat after which a worker is killed and replaced."""
CLOSE_TIMEOUT = 3.0
"""Seconds to wait for workers to close."""

TICK = 1.0
"""Seconds between checks of heartbeats."""

_LIVED_LONG = 10.0
"""Seconds: a worker that ran longer is replaced at once."""
_BACKOFF_MIN = 0.1
_BACKOFF_MAX = 5.0


class WorkerGroup:
    """`count` worker processes, each of which is replaced when it dies.

    This process keeps the sockets open, and does not read them. So the order of the sockets, which
    the kernel's filter uses, does not change, and packets that arrive while a worker is replaced
    wait in its socket.
    """

    def __init__(self, settings: ServeSettings, certificate: Certificate, count: int) -> None:
        self._settings = settings
        self._shares = [share(settings, count, index) for index in range(count)]
        self._certificate = certificate
        self._count = count
        self._sockets: list[socket.socket] = []
        self._workers: list[WorkerProcess] = []
        self._supervisors: list[asyncio.Task[None]] = []
        self._ticking: asyncio.Task[None] | None = None
        self._past: list[Metric] = []
        """The counters of workers that have ended."""
        self._restarts = 0
        self._stopping = False
        self._draining = False
        self._logger = get_logger("pingpong.server")
        self._address = ("", 0)

    @property
    def host(self) -> str:
        """The address of the socket."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The UDP port of the socket."""
        return self._address[1]

    @property
    def restarts(self) -> int:
        """The number of workers that died and were replaced."""
        return self._restarts

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers, in their order."""
        return [worker.pid for worker in self._workers]

    async def start(self) -> None:
        """Bind the port, start all workers, and wait until they are ready. Raises `ServeError`."""
        settings = self._settings
        try:
            sockets = bind_group(settings.bind_host, settings.bind_port, self._count)
        except OSError as error:
            raise ServeError(listen_failure(settings, error)) from error
        self._sockets += sockets
        self._address = sockets[0].getsockname()[:2]
        steered = steer(sockets)
        inboxes, outboxes = create_inboxes(self._count)
        self._sockets += [*inboxes, *outboxes]
        keys = shared_keys(settings, self._certificate)
        slots = [
            WorkerSlot(index, sockets[index], inboxes[index], outboxes, keys)
            for index in range(self._count)
        ]
        self._workers = [WorkerProcess(slot) for slot in slots]
        try:
            async with asyncio.TaskGroup() as starting:
                for worker, part in zip(self._workers, self._shares, strict=True):
                    starting.create_task(worker.start(part, self._certificate))
        except* ServeError as errors:
            raise ServeError(str(errors.exceptions[0])) from None
        self._logger.debug("workers_started", pids=self.pids, steered=steered)
        self._supervisors = [
            asyncio.create_task(self._supervise(index)) for index in range(self._count)
        ]
        self._ticking = asyncio.create_task(self._tick())

    def health(self) -> Health:
        """The health checks, combined for all workers."""
        found = [worker.health or Health() for worker in self._workers]
        results = dict(combine(found).results)
        silent = [
            f"worker {index} {'is gone' if worker.ended.is_set() else 'has said nothing'}"
            f" for {worker.silence * TICK:.0f} s"
            for index, worker in enumerate(self._workers)
            if worker.silence * TICK > HEARTBEAT_TIMEOUT
        ]
        results[WORKERS] = Result(not silent, "; ".join(silent) or f"{self._count} workers")
        gone = [
            f"worker {index} is gone"
            for index, worker in enumerate(self._workers)
            if not worker.listening
        ]
        if gone and not self._stopping:
            # Its clients get no answers.
            results[SELF_PING] = Result(False, "; ".join(gone))
        if self._draining:
            results |= while_draining(self._settings.drain_stay_ready)
        return Health(results)

    async def families(self) -> list[Metric]:
        """The metrics of all workers, including those that have ended, added up."""
        await asyncio.gather(*[self._publish(worker) for worker in self._workers])
        published = [from_json(worker.published) for worker in self._workers]
        alive = sum(worker.listening for worker in self._workers)
        return [
            *merge([*published, self._past], metrics.GAUGES),
            metrics.WORKERS.metric([((), alive)]),
            metrics.WORKER_RESTARTS.metric([((), self._restarts)]),
        ]

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate in new handshakes."""
        self._certificate = certificate
        for worker in self._workers:
            worker.notify("use_certificate", certificate=certificate.private_pem().decode())

    def reload(self) -> None:
        """Reload the files in all workers."""
        for worker in self._workers:
            worker.notify("reload")

    async def drain(self) -> None:
        """Drain all sessions until the drain timeout, then close the remaining ones."""
        self._draining = self._stopping = True
        await self._ask_all("drain", self._settings.drain_timeout + CLOSE_TIMEOUT)

    async def close(self) -> None:
        """Close everything at once, and end all worker processes."""
        self._stopping = True
        tasks = [*self._supervisors, *filter(None, [self._ticking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._ask_all("close", CLOSE_TIMEOUT)
        await asyncio.gather(*[worker.wait_ended(CLOSE_TIMEOUT) for worker in self._workers])
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    async def _ask_all(self, what: str, timeout: float) -> None:
        async def ask(worker: WorkerProcess) -> None:
            try:
                await worker.request(what, timeout=timeout)
            except (WorkerLostError, ServeError) as error:
                if not worker.ended.is_set():
                    self._logger.warning(
                        "worker_stop_timed_out", worker=worker.slot.index, error=str(error)
                    )
                    worker.kill()

        await asyncio.gather(*[ask(worker) for worker in self._workers if worker.pid])

    async def _publish(self, worker: WorkerProcess) -> None:
        # If it does not answer, its last report is used, which is a little old.
        with contextlib.suppress(WorkerLostError, ServeError):
            if worker.listening:
                worker.published = await worker.request("families", timeout=ANSWER_TIMEOUT)

    async def _tick(self) -> None:
        # Ticks are counted, so that time in which this process was stopped does not count.
        while True:
            await asyncio.sleep(TICK)
            for worker in self._workers:
                worker.silence += 1
                if worker.listening and worker.silence * TICK > KILL_AFTER:
                    self._logger.error("worker_hung", worker=worker.slot.index, pid=worker.pid)
                    worker.kill()  # then it is replaced

    async def _supervise(self, index: int) -> None:
        """Replace a worker when it dies."""
        backoff = 0.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            worker = self._workers[index]
            await worker.ended.wait()
            if self._stopping:
                return
            backoff = next_backoff(backoff, loop.time() - began)
            self._restarts += 1
            self._logger.error(
                "worker_died", worker=index, pid=worker.pid, status=worker.status, pause=backoff
            )
            self._remember(worker)
            await worker.wait_ended(0)
            await asyncio.sleep(backoff)
            if self._stopping:
                return
            began = loop.time()
            await self._replace(index, worker)

    async def _replace(self, index: int, worker: WorkerProcess) -> None:
        replacement = WorkerProcess(worker.slot)
        replacement.health = worker.health
        replacement.silence = worker.silence
        self._workers[index] = replacement
        certificate = self._certificate
        try:
            await replacement.start(self._shares[index], certificate)
        except ServeError as error:
            self._logger.error("worker_replacement_failed", worker=index, error=str(error))
            replacement.kill()
            if not replacement.pid:
                replacement.ended.set()
            return
        if certificate is not self._certificate:
            pem = self._certificate.private_pem().decode()
            replacement.notify("use_certificate", certificate=pem)
        if self._draining:
            replacement.notify("drain")
        self._logger.info("worker_replaced", worker=index, pid=replacement.pid)

    def _remember(self, worker: WorkerProcess) -> None:
        # Counters stay. Gauges, such as open sessions, end with the worker.
        counted = [one for one in from_json(worker.published) if one.type != "gauge"]
        worker.published = []
        self._past = merge([self._past, counted], metrics.GAUGES)


def next_backoff(last: float, lived: float) -> float:
    """Seconds to wait before a worker is replaced, after `lived` seconds and the last wait
    `last`."""
    if lived >= _LIVED_LONG:
        return 0.0
    return min(max(2 * last, _BACKOFF_MIN), _BACKOFF_MAX)


def share(settings: ServeSettings, count: int, index: int) -> ServeSettings:
    """The settings of a worker, with its share of the server's limits.

    The shares add up to the limit, but each worker has at least one connection.
    """

    def part(whole: int) -> int:
        return whole // count + (index < whole % count)

    changes = {"max_handshakes": part(settings.max_handshakes)}
    if settings.max_connections is not None:
        changes["max_connections"] = max(1, part(settings.max_connections))
    return settings.model_copy(update=changes)
