"""The pages of the admin port.

A check or a source of metrics that fails or takes too long is an error of its page only.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from html import escape
from typing import Any

from aiohttp import web

from ..telemetry.exposition import choose_format
from ..telemetry.failure_log import FailureLogThrottle
from ..telemetry.health import Check, Checks
from ..telemetry.logs import get_logger
from ..telemetry.redaction import shown
from ..telemetry.scrapes import Scrapes
from .access import Access
from .listener import NAME

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages:
    """Makes the pages; `access` checks the credentials of requests.

    ``/livez`` and ``/readyz`` need no authentication, since kubelet has none. Without it, they name
    the checks that fail, but not the reasons.
    """

    def __init__(
        self,
        access: Access,
        scrapes: Scrapes,
        *,
        liveness: Sequence[Check],
        readiness: Sequence[Check],
        config: Callable[[], dict[str, Any]],
        version: Mapping[str, str],
        timeout: float,
    ) -> None:
        self._access = access
        self._scrapes = scrapes
        self._checks = {"/livez": Checks(liveness), "/readyz": Checks(readiness)}
        self._config = config
        self._version = dict(version)
        self._timeout = timeout
        self._throttle = FailureLogThrottle()
        self._log = get_logger("pingpong.http").bind()
        self._pages: dict[str, tuple[str, _Handler]] = {
            "/livez": ("liveness (?verbose: each check, as JSON)", self._health),
            "/readyz": ("readiness (?verbose: each check, as JSON)", self._health),
            "/metrics": ("metrics, for Prometheus", self._metrics),
            "/version": ("versions, as JSON", self._versions),
            "/config": ("settings, as JSON", self._settings),
        }

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(middlewares=[self._answer])
        application.router.add_get("/", self._index)
        for path, (_, handler) in self._pages.items():
            application.router.add_get(path, handler)
        application.on_response_prepare.append(_add_headers)
        return application

    @web.middleware
    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        path = None if resource is None else resource.canonical
        needs_access = path not in self._checks or "verbose" in request.query
        if needs_access and not self._allowed(request):
            response: web.StreamResponse = self._unauthorized()
        else:
            response = await self._respond(request, handler)
        self._log.debug(
            "request_answered", method=request.method, path=request.path, status=response.status
        )
        return response

    async def _respond(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        path = request.path
        try:
            async with asyncio.timeout(self._timeout):
                response = await handler(request)
        except web.HTTPNotFound:
            return _plain(404, f"no such page; there are: / {' '.join(self._pages)}")
        except web.HTTPMethodNotAllowed:
            return _plain(405, "only GET and HEAD are allowed", Allow="GET, HEAD")
        except TimeoutError:
            return _plain(503, f"{path} took longer than {self._timeout:g} s: try again")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if failed := self._throttle.failed(path, reason, time.monotonic()):
                self._log.exception("page_failed", path=path, count=failed.count)
            return _plain(500, f"{path} failed: {reason}")
        self._throttle.succeeded(path, time.monotonic())
        return response

    def _allowed(self, request: web.Request) -> bool:
        return self._access.allows(request.headers.get("Authorization", ""))

    def _unauthorized(self) -> web.Response:
        response = _plain(401, f"authentication required: send {self._access.advice}")
        for challenge in self._access.challenges:
            response.headers.add("WWW-Authenticate", challenge)
        return response

    async def _index(self, request: web.Request) -> web.Response:
        rows = "".join(
            f'<li><a href="{path}">{path}</a>: {escape(about)}\n'
            for path, (about, _) in self._pages.items()
        )
        page = f"<!doctype html><title>pingpong</title>\n<h1>pingpong</h1>\n<ul>\n{rows}</ul>\n"
        return web.Response(text=page, content_type="text/html")

    async def _health(self, request: web.Request) -> web.Response:
        results = self._checks[request.path].run()
        failed = {name: result for name, result in results.items() if not result.ok}
        status = 503 if failed else 200
        if "verbose" not in request.query:
            if self._allowed(request):
                lines = [f"{name}: {result.reason}" for name, result in failed.items()]
            else:
                lines = [f"{name} failed" for name in failed]
            return _plain(status, *lines or ["ok"])
        checks = [
            {"name": name, "ok": result.ok, "reason": result.reason}
            for name, result in results.items()
        ]
        return _json({"ok": not failed, "checks": checks}, status)

    async def _metrics(self, request: web.Request) -> web.Response:
        format = choose_format(request.headers.get("Accept", ""))
        compressed = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        chunks = await self._scrapes.text(format, compressed=compressed)
        headers = {
            "Content-Type": format.value,
            "Content-Length": str(sum(map(len, chunks))),
            "Vary": "Accept, Accept-Encoding",
        }
        if compressed:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=_one_by_one(chunks), headers=headers)

    async def _versions(self, request: web.Request) -> web.Response:
        return _json(self._version)

    async def _settings(self, request: web.Request) -> web.Response:
        return _json(self._config())


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = NAME
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


async def _one_by_one(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)  # the event loop processes packets


def _plain(status: int, *lines: str, **headers: str) -> web.Response:
    """Lines of text, printable and redacted."""
    text = "".join(f"{shown(line)}\n" for line in lines)
    return web.Response(status=status, text=text, headers=headers)


def _json(value: object, status: int = 200) -> web.Response:
    text = json.dumps(shown(value), indent=2, ensure_ascii=False)
    return web.Response(
        status=status, body=f"{text}\n".encode(), headers={"Content-Type": "application/json"}
    )


def _accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip, and not with the weight 0 (RFC 9110, section 12.5.3)."""
    for coding in accept_encoding.split(","):
        name, *parameters = (part.strip().lower() for part in coding.split(";"))
        if name == "gzip":
            weight = dict(parameter.partition("=")[::2] for parameter in parameters).get("q", "1")
            return weight.strip("0.") != ""
    return False
