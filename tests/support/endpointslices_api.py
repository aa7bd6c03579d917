"""An API server on loopback that knows EndpointSlices: list and watch, over HTTP, with faults.

In threads of its own; for the real `kubernetes` client, by a kubeconfig that it writes.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token-that-no-log-may-show"


def endpoint(
    *addresses: str,
    pod: str | None = None,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
) -> dict[str, Any]:
    """An endpoint of a slice."""
    said = {"ready": ready, "serving": serving, "terminating": terminating}
    made: dict[str, Any] = {
        "addresses": list(addresses),
        "conditions": {name: value for name, value in said.items() if value is not None},
    }
    if pod is not None:
        made["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "ns"}
    return made


def port(number: int | None, name: str = "", protocol: str = "UDP") -> dict[str, Any]:
    """A port of a slice."""
    return {"name": name, "port": number, "protocol": protocol}


def endpoint_slice(
    name: str,
    *endpoints: dict[str, Any],
    ports: Iterable[dict[str, Any]] | None = None,
    service: str = "svc",
    family: str = "IPv4",
) -> dict[str, Any]:
    """An EndpointSlice of a service in the namespace ns; by default with the port 4433."""
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "ports": [port(4433)] if ports is None else list(ports),
        "endpoints": list(endpoints),
    }


@dataclass(frozen=True)
class Request:
    kind: str
    path: str
    version: str
    token: str


class ApiServer:
    """Answers as it is told; a context manager."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 200
        """With anything else, that is what every request is answered with."""
        self.garbage: bytes | None = None
        """What a list is answered with instead."""
        self.is_silent = False
        self._slices: dict[str, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._version = 100
        self._forgotten = 0
        self._watches: list[_Watch] = []
        self._changed = threading.Condition()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.api = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def kubeconfig(self, folder: Path) -> str:
        """Write a kubeconfig for this server, with a token."""
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(  # which is YAML, too
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "clusters": [{"name": "test", "cluster": {"server": self.url}}],
                    "users": [{"name": "test", "user": {"token": TOKEN}}],
                }
            )
        )
        return str(path)

    def put(self, made: dict[str, Any]) -> None:
        """Have this slice, new or changed."""
        with self._changed:
            name = made["metadata"]["name"]
            kind = "MODIFIED" if name in self._slices else "ADDED"
            self._slices[name] = self._event(kind, made)

    def delete(self, name: str) -> None:
        with self._changed:
            self._event("DELETED", self._slices.pop(name))

    def bookmark(self) -> None:
        """Tell the watches a newer version, and nothing else."""
        with self._changed:
            self._event("BOOKMARK", {"metadata": {}})

    def send(self, event: dict[str, Any]) -> None:
        """Tell the watches this, whatever it is."""
        with self._changed:
            self._events.append({"version": self._version, "event": event})
            self._changed.notify_all()

    def forget(self) -> None:
        """Forget the past: who watches from a version before now on is told 410 Gone."""
        with self._changed:
            self._version += 1
            self._forgotten = self._version
            self._events.clear()

    def end_watches(self, *, abruptly: bool = False) -> None:
        """End all watches, in order, as after their time, or as a crash does."""
        with self._changed:
            for watch in self._watches:
                watch.end(abruptly)
            self._changed.notify_all()

    @property
    def watches(self) -> int:
        with self._changed:
            return len(self._watches)

    def count(self, kind: str) -> int:
        """How many lists, or watches, were asked for."""
        return sum(request.kind == kind for request in list(self.requests))

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self.end_watches(abruptly=True)
        self._http.server_close()

    def _event(self, kind: str, made: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {**made["metadata"], "resourceVersion": str(self._version)}
        made = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", **made}
        made["metadata"] = metadata
        event = {"type": kind, "object": made}
        self._events.append({"version": self._version, "event": event})
        self._changed.notify_all()
        return made

    def list(self, service: str) -> dict[str, Any]:
        with self._changed:
            return {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"resourceVersion": str(self._version)},
                "items": [e for e in self._slices.values() if _service(e) in ("", service)],
            }

    def follow(self, watch: _Watch, service: str, version: int) -> Iterator[dict[str, Any]]:
        """What comes after a version, until the watch is ended."""
        if version < self._forgotten:
            gone = {"code": 410, "reason": "Expired", "message": f"too old: {version}"}
            yield {"type": "ERROR", "object": {"kind": "Status", "metadata": {}, **gone}}
            return
        with self._changed:
            seen = [e for e in self._events if e["version"] <= version]
            position = len(seen)
            self._watches.append(watch)
            try:
                while not watch.is_over:
                    events = self._events[position:]
                    position += len(events)
                    for each in events:
                        if _service(each["event"].get("object") or {}) in ("", service):
                            yield each["event"]
                    if not events:
                        self._changed.wait(30)
            finally:
                self._watches.remove(watch)


@dataclass(eq=False)
class _Watch:
    connection: socket.socket
    is_over: bool = False
    is_abrupt: bool = False

    def end(self, abruptly: bool) -> None:
        self.is_over = True
        self.is_abrupt = abruptly
        if abruptly:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: ApiServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes in the midst of an answer, as it may


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        api = self.server.api
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        watches = query.get("watch", "").lower() == "true"
        version = query.get("resourceVersion", "")
        token = self.headers.get("Authorization") or ""
        api.requests.append(Request("watch" if watches else "list", url.path, version, token))
        service = query["labelSelector"].partition("=")[2]
        if api.is_silent:
            self.rfile.read(1)  # until the client gives up
        elif api.status != 200:
            self._answer(api.status, json.dumps({"kind": "Status", "code": api.status}).encode())
        elif watches:
            self._follow(service, int(version))
        else:
            body = json.dumps(api.list(service)).encode() if api.garbage is None else api.garbage
            self._answer(200, body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _follow(self, service: str, version: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        watch = _Watch(self.connection)
        for event in self.server.api.follow(watch, service, version):
            line = json.dumps(event).encode() + b"\n"
            middle = len(line) // 2  # an event needs not be one chunk
            for part in line[:middle], line[middle:]:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        if watch.is_abrupt:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


def _service(made: dict[str, Any]) -> str:
    labels = (made.get("metadata") or {}).get("labels") or {}
    return str(labels.get("kubernetes.io/service-name", ""))
