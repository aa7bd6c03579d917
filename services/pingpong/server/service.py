"""`pingpong serve`: starts and stops certificate, workers and admin port."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from prometheus_client import Metric

from ..admin import Admin, AdminError
from ..lifecycle import collect_garbage_seldom, stop_signal
from ..settings import ServeSettings
from ..telemetry.health import Check
from ..telemetry.logs import get_logger
from ..telemetry.process import versions
from ..webtransport import MAX_WORKERS
from ..webtransport.asyncio import choose_engine, engine_lacks
from ..webtransport.certificates import Certificate
from . import ServeError, metrics
from .health import LIVENESS, READINESS
from .resources import AllowedConnections, usable_cores, usable_memory
from .tls.keeper import SELF_SIGNED, make_keeper
from .workers.endpoint import shared_keys
from .workers.group import WorkerGroup
from .workers.worker import Worker

_HOUSEKEEPING_INTERVAL = 1.0
"""Seconds between two checks of the files."""

_ANY_ADDRESS = ("::", "0.0.0.0")

Workers: TypeAlias = Worker | WorkerGroup
"""One worker in this process, or a group of worker processes."""


def count_workers(settings: ServeSettings) -> int:
    """The number of workers by the settings."""
    return settings.workers or min(usable_cores(), MAX_WORKERS)


def make_workers(settings: ServeSettings, certificate: Certificate) -> Workers:
    """Make one worker in this process, or the group of worker processes."""
    count = count_workers(settings)
    if count == 1:
        return Worker(settings, certificate, keys=shared_keys(settings, certificate))
    return WorkerGroup(settings, certificate, count)


def ping_command(settings: ServeSettings, port: int, certificate: Certificate) -> str:
    """A shell command that pings the server from this machine."""
    host = "localhost" if settings.bind_host in _ANY_ADDRESS else settings.bind_host
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}/ping"
    words = [*_program(), "ping", url, "--cert-hash", certificate.sha256.hex()]
    if settings.auth != "none":
        words += ["--token-file", str(settings.token_file or "FILE")]
    return shlex.join(words)


def _program() -> list[str]:
    """The command of this program, for a shell in the current directory."""
    if shutil.which("pingpong"):
        return ["pingpong"]
    script = Path(sys.executable).with_name("pingpong")
    if not os.access(script, os.X_OK):
        return [sys.executable, "-m", "pingpong"]
    return [str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)]


class Service:
    """The server as a whole."""

    def __init__(self, settings: ServeSettings) -> None:
        self._logger = get_logger("pingpong.server")
        self._allowed = AllowedConnections.choose(
            settings.max_connections, usable_memory(), count_workers(settings)
        )
        settings = settings.model_copy(update={"max_connections": self._allowed.number})
        self._settings = settings
        self._keeper = make_keeper(settings, datetime.now(UTC))
        self._workers = make_workers(settings, self._keeper.certificate)
        self._versions = versions()
        self._admin = Admin(
            settings,
            liveness=[self._check(name) for name in LIVENESS],
            readiness=[self._check(name) for name in READINESS],
            families=self._families,
            version=self._versions,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `ServeError` if it cannot start."""
        stopped = stop_signal(self._reload)
        housekeeping: asyncio.Task[None] | None = None
        try:
            await self._workers.start()
            await self._start_admin()
            collect_garbage_seldom()
            self._log_listening()
            housekeeping = asyncio.create_task(self._watch_files())
            received = await stopped
            self._logger.info("stopping", signal=received.name)
            await self._workers.drain()
        finally:
            if housekeeping is not None:
                housekeeping.cancel()
            await self._workers.close()
            await self._admin.close()  # last, so that the server is alive until the end
        self._logger.info("stopped")

    async def _start_admin(self) -> None:
        try:
            await self._admin.start()
        except AdminError as error:
            raise ServeError(str(error)) from error

    def _log_listening(self) -> None:
        certificate = self._keeper.certificate
        engine = choose_engine(self._settings.engine, server=True)
        self._logger.info(
            "listening",
            host=self._workers.host,
            port=self._workers.port,
            admin_port=self._admin.port,
            max_connections=self._allowed.number,
            engine=engine,
            certificate=self._keeper.origin,
            sha256=certificate.sha256.hex(),
            not_after=certificate.not_after.isoformat(),
        )
        self._allowed.log(self._logger)
        if lacks := engine_lacks(engine):
            self._logger.info("engine_limited", engine=engine, lacks=lacks)
        if self._keeper.origin == SELF_SIGNED:
            # Clients need the hash of the certificate.
            command = ping_command(self._settings, self._workers.port, certificate)
            self._logger.info("command_suggested", command=command)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL)
            try:
                self._check_files()
            except Exception:
                self._logger.exception("housekeeping_failed")

    def _check_files(self) -> None:
        certificate = self._keeper.check(datetime.now(UTC))
        if certificate is not None:
            self._workers.use_certificate(certificate)

    def _reload(self) -> None:
        self._logger.info("reloading", signal="SIGHUP")
        self._check_files()
        self._admin.check_files()
        self._workers.reload()

    def _check(self, name: str) -> Check:
        return Check(name, lambda: self._workers.health().result(name))

    async def _families(self) -> Iterable[Metric]:
        certificate = self._keeper.certificate
        return [
            *await self._workers.families(),
            metrics.CERTIFICATE_NOT_AFTER.metric([((), certificate.not_after.timestamp())]),
            metrics.CERTIFICATE_RELOAD_FAILED.metric([((), int(self._keeper.reload_failed))]),
            metrics.BUILD_INFO.metric([(tuple(self._versions.values()), 1)]),
        ]


async def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `ServeError` if it cannot start."""
    await Service(settings).run()
