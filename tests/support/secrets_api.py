"""A Kubernetes API server of ours, as far as Secrets go: get, create and replace, with faults."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

PREFIX = "/api/v1/namespaces/testing/secrets"
VERBS = {"GET": "get", "POST": "create", "PUT": "update"}


class Request(NamedTuple):
    verb: str
    name: str


class SecretsApi:
    """Holds the Secrets of the namespace `testing`; a context manager."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.before: Callable[[Request], int | None] = lambda request: None
        """Called with each request before it is done; a status is what it is answered with."""
        self.objects: dict[str, dict[str, Any]] = {}
        self._version = 0
        self._lock = threading.RLock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.api = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def data(self, name: str) -> dict[str, bytes]:
        """What a Secret holds."""
        data = self.objects[name].get("data") or {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def put(self, name: str, data: Mapping[str, bytes], **metadata: Any) -> None:
        """Have a Secret hold this, as if somebody had written it."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        self.store(name, {"metadata": metadata, "type": "Opaque", "data": encoded})

    def store(self, name: str, secret: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._version += 1
            metadata = {**secret["metadata"], "name": name, "namespace": "testing"}
            metadata["resourceVersion"] = str(self._version)
            stored = {**secret, "kind": "Secret", "apiVersion": "v1", "metadata": metadata}
            self.objects[name] = stored
            return stored

    def answer(self, verb: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        request = Request(verb, name)
        self.requests.append(request)
        if (status := self.before(request)) is not None:
            return status, _status(status)
        with self._lock:
            there = self.objects.get(name)
            if verb == "create":
                return (409, _status(409)) if there else (201, self.store(name, body))
            if there is None:
                return 404, _status(404)
            if verb == "update":
                if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
                    return 409, _status(409)
                return 200, self.store(name, body)
            return 200, there

    def __enter__(self) -> SecretsApi:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _status(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: SecretsApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes in the midst of an answer, as it may


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}")
        assert self.path.startswith(PREFIX), self.path
        assert self.headers["authorization"] == "Bearer own-token"
        name = self.path.removeprefix(PREFIX).lstrip("/") or body["metadata"]["name"]
        status, answer = self.server.api.answer(VERBS[self.command], name, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
