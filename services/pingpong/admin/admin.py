"""The admin port as a whole, from its start to its end."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Mapping, Sequence

from ..settings import ServiceSettings
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
    """Answers on the admin port, from `start` to `close`.

    `liveness` are the checks of ``/livez`` (where one fails, a restart helps), `readiness` those of
    ``/readyz`` (where one fails, the service does not do its work now). `families` gives the
    metrics, anew for each scrape; what it returns may be an iterator, and is then gone through with
    pauses, in which what it iterates over must not change. The settings are a page as well; their
    secrets are redacted.
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
        """The TCP port; where 0 was asked for, it is known once started."""
        return self._port

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return 0 if self._listener is None else self._listener.connections

    async def start(self) -> None:
        """Bind the port and answer.

        Raises:
            AdminError: the port cannot be had, or a file cannot be used.
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
                warning="tokens and passwords of the admin port cross the network in clear: set"
                " PINGPONG_ADMIN_TLS_CERT_FILE and PINGPONG_ADMIN_TLS_KEY_FILE",
            )

    def check_files(self) -> None:
        """Read files again that have changed; it is done every second as well."""
        now = time.monotonic()
        if self._access is not None:
            self._access.check_files(now)
        if self._tls is not None:
            self._tls.check_files(now)

    async def close(self) -> None:
        """Stop; requests without an answer yet get none."""
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
        return (
            f"{where}: the port is in use; set PINGPONG_ADMIN_PORT (--admin-port) to another one"
            " (0: any)"
        )
    if error.errno == errno.EACCES:
        return f"{where}: not allowed; set PINGPONG_ADMIN_PORT (--admin-port) to one above 1023"
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{where}: {reason}; set PINGPONG_ADMIN_HOST (--admin-host) to an address of this"
            " machine"
        )
    return f"{where}: {reason}"
