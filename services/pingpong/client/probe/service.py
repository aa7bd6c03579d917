"""`pingpong probe`: starts and stops metrics, targets, discovery and the admin port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from prometheus_client import Metric

from ...admin import Admin, AdminError
from ...lifecycle import collect_garbage_seldom, stop_signal
from ...settings import ProbeSettings
from ...telemetry.health import Check, LoopLag, Result
from ...telemetry.logs import dropped_lines, get_logger
from ...telemetry.process import standard_registry, versions
from ...webtransport.asyncio import choose_engine
from ..discovery import Destination, Discovery
from ..output import terminal
from .metrics import (
    BUILD_INFO,
    DISCOVERY_LAST_SUCCESS,
    EVENT_LOOP_LAG,
    LOG_LINES_DROPPED,
    ProbeMetrics,
)
from .readiness import target_check
from .supervisor import Supervisor

T = TypeVar("T")

EXIT_OK = 0
EXIT_ERROR = 2

_CLOSE_TIMEOUT = 0.8
"""Seconds to close the sessions of all targets."""


class Service:
    """The prober as a whole."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._settings = settings
        self._log = get_logger("pingpong.client")
        self._metrics = ProbeMetrics()
        self._supervisor = Supervisor(settings, self._metrics, self._look_up)
        self._discovery = Discovery(
            settings.targets,
            per_address=settings.all,
            max_targets=settings.max_targets,
            interval=settings.discovery_interval,
            changed=self._supervisor.changed,
            counted=self._metrics.count_lookup,
        )
        self._lag = LoopLag()
        self._registry = standard_registry(self._metrics, self)
        self._versions = versions()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._discovering: asyncio.Task[None] | None = None
        self._admin = Admin(
            settings,
            liveness=[self._lag.check(), Check("discovery", self._discovers)],
            readiness=[
                target_check(settings.ready_requires, self._supervisor.statuses),
                # The client stays ready if a lookup fails: the last good answer stays valid.
                Check("discovery", lambda: Result(True, self._discovery.summary())),
            ],
            families=self._families,
            version=self._versions,
        )

    async def run(self) -> int:
        """Probe until SIGTERM or SIGINT. Returns the exit status."""
        stopped = stop_signal(self._look_again)
        try:
            await self._admin.start()
        except AdminError as error:
            terminal().complain(str(error))
            return EXIT_ERROR
        try:
            self._discovering = self._begin(self._discovery.run())
            self._lag.start()
            collect_garbage_seldom()
            self._log_started()
            received = await stopped
            self._log.info("stopping", signal=received.name, targets=len(self._metrics.targets))
        finally:
            for task in self._tasks:
                task.cancel()
            await self._supervisor.close(_CLOSE_TIMEOUT)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._lag.close()
            await self._admin.close()
        self._log.info("stopped")
        return EXIT_OK

    def _log_started(self) -> None:
        self._log.info(
            "started",
            targets=list(self._settings.targets),
            mode=list(self._settings.mode),
            engine=choose_engine(self._settings.engine, server=False),
            interval=self._settings.interval,
            trust=self._settings.trust,
            admin_port=self._admin.port,
        )

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look_up(self, name: str) -> Destination:
        return await self._discovery.refresh(name)

    def _look_again(self) -> None:
        """On SIGHUP, look up names and read files now."""
        destinations = self._discovery.destinations
        self._log.info("looking_again", targets=len(destinations))
        self._admin.check_files()
        self._supervisor.connect_now()
        for name in destinations:
            self._begin(self._look_up_again(name))

    async def _look_up_again(self, name: str) -> None:
        with contextlib.suppress(KeyError):  # it may have been removed
            await self._discovery.refresh(name)

    def _discovers(self) -> Result:
        is_over = self._discovering is None or self._discovering.done()
        return Result(not is_over, "has ended" if is_over else "runs")

    def collect(self) -> Iterator[Metric]:
        """Metrics besides those of the probes, for Prometheus."""
        yield DISCOVERY_LAST_SUCCESS.metric([((), self._discovery.last_success)])
        yield EVENT_LOOP_LAG.metric([((), self._lag.counts)])
        yield LOG_LINES_DROPPED.metric([((), dropped_lines())])
        yield BUILD_INFO.metric([(tuple(self._versions.values()), 1)])

    async def _families(self) -> Iterable[Metric]:
        return self._registry.collect()


async def probe(settings: ProbeSettings) -> int:
    """Probe until SIGTERM or SIGINT. Returns the exit status."""
    return await Service(settings).run()
