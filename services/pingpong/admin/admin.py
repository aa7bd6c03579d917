"""Starts and stops the admin port."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Mapping, Sequence

from ..settings import ServiceSettings
from ..settings.command_line import named
from ..telemetry.health import Check
from ..telemetry.logs import get_logger
from ..telemetry.scrapes import Families, Scrapes
from .access import Access
from .errors import AdminError
from .listener import Bounds, Listener, bind_tcp
from .pages import Pages
from .tls import ServerTls

_HOUSEKEEPING_INTERVAL = 1.0
"""Seconds between two checks of the files."""


class Admin:
    """The server on the admin port, from `start` to `close`.

    `liveness` are the checks of ``/livez`` (if one fails, a restart may help), `readiness` those of
    ``/readyz`` (if one fails, the service does not do its work now). `families` returns the metrics
    for a scrape. They may be an iterator; the event loop runs between its items. The settings are a
    page too, with their secrets redacted.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        liveness: Sequence[Check],
        readiness: Sequence[Check],
        families: Families,
        version: Mapping[str, str],
        bounds: Bounds | None = None,
    ) -> None:
        self._settings = settings
        self._liveness = liveness
        self._readiness = readiness
        self._version = version
        self._bounds = bounds or Bounds()
        self._scrapes = Scrapes(families)
        self._port = settings.admin_port
        self._log = get_logger("pingpong.admin")
        self._access: Access | None = None
        self._tls: ServerTls | None = None
        self._listener: Listener | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The TCP port; if the setting is 0, it is known once started."""
        return self._port

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return 0 if self._listener is None else self._listener.connections

    async def start(self) -> None:
        """Bind the port and answer.

        Raises:
            AdminError: the port cannot be bound, or a file cannot be used.
        """
        settings = self._settings
        access = Access(settings.admin_token_file, settings.admin_basic_auth_file)
        if settings.admin_tls_cert_file and settings.admin_tls_key_file:
            self._tls = ServerTls(settings.admin_tls_cert_file, settings.admin_tls_key_file)
        try:
            listening = bind_tcp(settings.admin_host, self._port)
        except OSError as error:
            raise AdminError(_advice(settings.admin_host, self._port, error)) from error
        self._port = listening.getsockname()[1]
        pages = Pages(
            access,
            self._scrapes,
            liveness=self._liveness,
            readiness=self._readiness,
            config=settings.masked,
            version=self._version,
            timeout=self._bounds.timeout,
        )
        self._access = access
        self._listener = Listener(pages.application(), self._bounds)
        await self._listener.start(listening, None if self._tls is None else self._tls.context)
        self._housekeeping = asyncio.create_task(self._watch_files())
        self._log.info(
            "admin_listening",
            host=settings.admin_host,
            port=self._port,
            scheme="http" if self._tls is None else "https",
        )
        if self._tls is None and not access.is_open:
            self._log.warning(
                "admin_authentication_in_clear",
                warning="tokens and passwords are sent to the admin port without TLS: set"
                f" {named('admin_tls_cert_file')} and {named('admin_tls_key_file')}",
            )

    def check_files(self) -> None:
        """Read changed files again; this also happens every second."""
        now = time.monotonic()
        if self._access is not None:
            self._access.check_files(now)
        if self._tls is not None:
            self._tls.check_files(now)

    async def close(self) -> None:
        """Stop. Requests without an answer get none."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        if self._listener is not None:
            await self._listener.close()
        await self._scrapes.close()

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL)
            try:
                self.check_files()
            except Exception:
                self._log.exception("housekeeping_failed")


def _advice(host: str, port: int, error: OSError) -> str:
    where = f"cannot listen for HTTP on {host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is in use; set {named('admin_port')} to another one (0: any)"
    if error.errno == errno.EACCES:
        return f"{where}: not allowed; set {named('admin_port')} to one above 1023"
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: {reason}; set {named('admin_host')} to an address of this machine"
    return f"{where}: {reason}"
