"""The admin port: health, metrics, version and settings over HTTP, for kubelet, Prometheus, people.

Nothing that a check or a source of metrics does ends the service, or keeps the port from answering.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from html import escape
from typing import Any

from .exposition import choose_format
from .health import Check, Checks
from .http1 import HttpServer, Request, Response, bind_tcp, plain
from .logs import get_logger
from .redaction import shown
from .scrapes import Families, Scrapes


class AdminError(Exception):
    """The admin port cannot be had; the text says in one line why, and what to do."""


class Admin:
    """Answers on the admin port, from `start` to `close`.

    `liveness` are the checks of ``/livez`` (where one fails, a restart helps), `readiness` those of
    ``/readyz`` (where one fails, the service does not do its work now). `families` gives the
    metrics, anew for each scrape; what it returns may be an iterator, and is then gone through with
    pauses, in which what it iterates over must not change. `config` gives the settings as JSON can hold them;
    their secrets are redacted.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        liveness: Sequence[Check],
        readiness: Sequence[Check],
        families: Families,
        config: Callable[[], dict[str, Any]],
        version: Mapping[str, str],
    ) -> None:
        """`host` as `::` takes IPv4 as well; `port` 0 is any."""
        self._host = host
        self._port = port
        self._checks = {"/livez": Checks(liveness), "/readyz": Checks(readiness)}
        self._scrapes = Scrapes(families)
        self._config = config
        self._version = dict(version)
        self._http = HttpServer(self._answer)
        self._pages: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/livez": ("is it alive (?verbose: each check, as JSON)", self._health),
            "/readyz": ("is it ready (?verbose: each check, as JSON)", self._health),
            "/metrics": ("metrics, for Prometheus", self._metrics),
            "/version": ("versions, as JSON", self._versions),
            "/config": ("settings, as JSON", self._settings),
        }

    @property
    def port(self) -> int:
        """The TCP port; where 0 was asked for, it is known once started."""
        return self._port

    async def start(self) -> None:
        """Bind the port and answer.

        Raises:
            AdminError: the port cannot be had.
        """
        try:
            listening = bind_tcp(self._host, self._port)
        except OSError as error:
            raise AdminError(_advice(self._host, self._port, error)) from error
        self._port = listening.getsockname()[1]
        await self._http.start(listening)
        get_logger("pingpong.admin").info("admin_listening", host=self._host, port=self._port)

    async def close(self) -> None:
        """Stop; requests without an answer yet get none."""
        await self._http.close()
        await self._scrapes.close()

    async def _answer(self, request: Request) -> Response:
        if request.path != "/" and request.path not in self._pages:
            return plain(404, f"there is no such page; there are: / {' '.join(self._pages)}")
        if request.method not in ("GET", "HEAD"):
            return plain(405, "only GET and HEAD are answered here", allow="GET, HEAD")
        if request.path == "/":
            return self._index()
        return await self._pages[request.path][1](request)

    def _index(self) -> Response:
        rows = "".join(
            f'<li><a href="{path}">{path}</a>: {escape(about)}\n'
            for path, (about, _) in self._pages.items()
        )
        page = f"<!doctype html><title>pingpong</title>\n<h1>pingpong</h1>\n<ul>\n{rows}</ul>\n"
        return Response(200, [page.encode()], "text/html; charset=utf-8")

    async def _health(self, request: Request) -> Response:
        results = self._checks[request.path].run()
        failed = {name: result for name, result in results.items() if not result.ok}
        status = 503 if failed else 200
        if "verbose" not in request.query:
            lines = [f"{name}: {result.reason}" for name, result in failed.items()]
            return plain(status, *lines or ["ok"])
        checks = [
            {"name": name, "ok": result.ok, "reason": result.reason}
            for name, result in results.items()
        ]
        return _json({"ok": not failed, "checks": checks}, status)

    async def _metrics(self, request: Request) -> Response:
        format = choose_format(request.headers.get("accept", ""))
        compressed = _accepts_gzip(request.headers.get("accept-encoding", ""))
        chunks = await self._scrapes.text(format, compressed=compressed)
        headers = {"vary": "Accept, Accept-Encoding"}
        if compressed:
            headers["content-encoding"] = "gzip"
        return Response(200, chunks, format.value, headers)

    async def _versions(self, request: Request) -> Response:
        return _json(self._version)

    async def _settings(self, request: Request) -> Response:
        return _json(self._config())


def _json(value: object, status: int = 200) -> Response:
    text = json.dumps(shown(value), indent=2, ensure_ascii=False)
    return Response(status, [f"{text}\n".encode()], "application/json")


def _accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip, and not with the weight 0 (RFC 9110, section 12.5.3)."""
    for coding in accept_encoding.split(","):
        name, *parameters = (part.strip().lower() for part in coding.split(";"))
        if name == "gzip":
            weight = dict(parameter.partition("=")[::2] for parameter in parameters).get("q", "1")
            return weight.strip("0.") != ""
    return False


def _advice(host: str, port: int, error: OSError) -> str:
    where = f"cannot listen for HTTP on {host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is in use; set PINGPONG_ADMIN_PORT to another one (0: any)"
    if error.errno == errno.EACCES:
        return f"{where}: not allowed; set PINGPONG_ADMIN_PORT to one above 1023"
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: {reason}; set PINGPONG_ADMIN_HOST to an address of this machine"
    return f"{where}: {reason}"
