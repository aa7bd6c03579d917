"""A Kubernetes API server on loopback: EndpointSlices, TokenReviews and Secrets, with faults.

In threads of its own; for the real client library, by a kubeconfig that it writes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest

TOKEN = "a-token-that-no-log-may-show"
GOOD = {"authenticated": True, "audiences": ["pingpong"], "user": {"username": "a"}}
"""The status of a TokenReview for a token that is good."""
PROBE = "e30.e30.e30"
"""The token that a server asks about at its start, to find out whether it may."""
SLICES = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
SECRETS = "/api/v1/namespaces/testing/secrets"
VERBS = {"GET": "get", "POST": "create", "PUT": "update"}

Object: TypeAlias = dict[str, Any]


def jwt(name: str, **claims: object) -> bytes:
    """A token as service accounts have it."""
    parts = ({"alg": "none"}, {"sub": name, **claims})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*texts, b"signature"])


def endpoint(
    *addresses: str,
    pod: str | None = None,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
) -> Object:
    """An endpoint of a slice."""
    said = {"ready": ready, "serving": serving, "terminating": terminating}
    made: Object = {
        "addresses": list(addresses),
        "conditions": {name: value for name, value in said.items() if value is not None},
    }
    if pod is not None:
        made["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "ns"}
    return made


def port(number: int | None, name: str = "", protocol: str = "UDP") -> Object:
    """A port of a slice."""
    return {"name": name, "port": number, "protocol": protocol}


def endpoint_slice(
    name: str,
    *endpoints: Object,
    ports: Iterable[Object] | None = None,
    service: str = "svc",
    family: str = "IPv4",
) -> Object:
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
    """What was asked; the same for all that ask the same of an object."""

    verb: str
    """Of Kubernetes: get, list, watch, create, update."""
    name: str = ""
    path: str = field(default="", compare=False)
    query: Mapping[str, str] = field(default_factory=dict, compare=False)
    credential: str | None = field(default=None, compare=False)
    body: Object = field(default_factory=dict, compare=False)

    @property
    def token(self) -> str:
        """The token that a TokenReview is about."""
        return str(self.body["spec"]["token"])


def as_usual(request: Request) -> None:
    """Of `ApiServer.instead`: no fault."""


class ApiServer:
    """Holds EndpointSlices of the namespace `ns` and Secrets of `testing`; a context manager."""

    def __init__(self, certificate: Path | None = None) -> None:
        """With TLS where there is a file with a certificate and its key."""
        self.requests: list[Request] = []
        """All but those about the token `PROBE`, which no fault befalls either."""
        self.instead: Callable[[Request], int | bytes | Object | None] = as_usual
        """Called with each request: a status, content, or a review's status to answer with."""
        self.secrets: dict[str, Object] = {}
        self._slices: dict[str, Object] = {}
        self._events: list[Object] = []
        self._version = 100
        self._forgotten = 0
        self._watches: list[_Watch] = []
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._released.set()
        self._http = _Http(self)
        self._is_secure = certificate is not None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def make_found(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Have this process find it as the API server of its cluster."""
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("KUBECONFIG", self.kubeconfig(folder))

    def kubeconfig(self, folder: Path, **user: Any) -> str:
        """Write a kubeconfig for this server, with a token unless `user` is something else."""
        path = folder / "kubeconfig"
        scheme = "https" if self._is_secure else "http"
        cluster = {"server": f"{scheme}://127.0.0.1:{self.port}"}
        path.write_text(
            json.dumps(  # which is YAML, too
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "test", "user": user or {"token": TOKEN}}],
                }
            )
        )
        return str(path)

    def hold(self) -> None:
        """Answer no request until `release`."""
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def count(self, verb: str) -> int:
        """How many requests there were of a verb."""
        return sum(request.verb == verb for request in list(self.requests))

    @property
    def reviewed(self) -> list[str]:
        """The tokens that were asked about."""
        return [request.token for request in list(self.requests) if request.path == REVIEWS]

    def close(self) -> None:
        self.release()
        self._http.shutdown()
        self._thread.join()
        self.end_watches(abruptly=True)
        self._http.server_close()
        for connection in self._http.connections:
            _cut(connection)

    def __enter__(self) -> ApiServer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def answer(self, request: Request) -> tuple[int, Object | bytes]:
        """The status and the content for a request, unless it is a watch."""
        is_review = request.path == REVIEWS
        if is_review and request.token == PROBE:
            return 201, {**request.body, "status": {"authenticated": False}}
        self.requests.append(request)
        self._released.wait(10)
        instead = self.instead(request)
        if isinstance(instead, int):
            return instead, _status(instead, f"about {request.body}")
        if isinstance(instead, bytes):
            return 200, instead
        if is_review:
            return 201, {**request.body, "status": GOOD if instead is None else instead}
        if request.path.startswith(SECRETS):
            return self._secret(request)
        return 200, self._list(request)

    # EndpointSlices

    def put(self, made: Object) -> None:
        """Have this slice, new or changed."""
        with self._changed:
            name = made["metadata"]["name"]
            kind = "MODIFIED" if name in self._slices else "ADDED"
            self._slices[name] = self._event(kind, made)

    def delete(self, name: str) -> None:
        with self._changed:
            self._event("DELETED", self._slices.pop(name))

    def bookmark(self) -> None:
        """Send a newer version to the watches, and nothing else."""
        with self._changed:
            self._event("BOOKMARK", {"metadata": {}})

    def send(self, event: Object) -> None:
        """Send this to the watches, whatever it is."""
        with self._changed:
            self._events.append({"version": self._version, "event": event})
            self._changed.notify_all()

    def forget(self) -> None:
        """Forget the past: a watch from a version before now gets 410 Gone."""
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

    def _event(self, kind: str, made: Object) -> Object:
        self._version += 1
        metadata = {**made["metadata"], "resourceVersion": str(self._version)}
        made = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", **made}
        made["metadata"] = metadata
        self.send({"type": kind, "object": made})
        return made

    def _list(self, request: Request) -> Object:
        with self._changed:
            return {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"resourceVersion": str(self._version)},
                "items": [each for each in self._slices.values() if _is_asked_for(each, request)],
            }

    def follow(self, watch: _Watch, request: Request) -> Iterator[Object]:
        """What comes after a version, until the watch is ended."""
        version = int(request.query["resourceVersion"])
        if version < self._forgotten:
            gone = {"reason": "Expired", "metadata": {}}
            yield {"type": "ERROR", "object": _status(410, f"too old: {version}") | gone}
            return
        with self._changed:
            position = len([each for each in self._events if each["version"] <= version])
            self._watches.append(watch)
            try:
                while not watch.is_over:
                    events = self._events[position:]
                    position += len(events)
                    for each in events:
                        if _is_asked_for(each["event"].get("object") or {}, request):
                            yield each["event"]
                    if not events:
                        self._changed.wait(30)
            finally:
                self._watches.remove(watch)

    # Secrets

    def data(self, name: str) -> dict[str, bytes]:
        """What a Secret holds."""
        data = self.secrets[name].get("data") or {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def put_secret(self, name: str, data: Mapping[str, bytes], **metadata: Any) -> None:
        """Have a Secret hold this, as if somebody had written it."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        self._store(name, {"metadata": metadata, "type": "Opaque", "data": encoded})

    def _store(self, name: str, secret: Object) -> Object:
        with self._changed:
            self._version += 1
            metadata = {**secret["metadata"], "name": name, "namespace": "testing"}
            metadata["resourceVersion"] = str(self._version)
            stored = {**secret, "kind": "Secret", "apiVersion": "v1", "metadata": metadata}
            self.secrets[name] = stored
            return stored

    def _secret(self, request: Request) -> tuple[int, Object]:
        with self._changed:
            there = self.secrets.get(request.name)
            if request.verb == "create":
                conflict = there is not None
            elif there is None:
                return 404, _status(404)
            elif request.verb == "update":
                version = request.body["metadata"]["resourceVersion"]
                conflict = version != there["metadata"]["resourceVersion"]
            else:
                return 200, there
            if conflict:
                return 409, _status(409)
            return 201 if there is None else 200, self._store(request.name, request.body)


def _status(code: int, message: str = "") -> Object:
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return {**said, "code": code, "message": message}


def _is_asked_for(made: Object, request: Request) -> bool:
    """Whether a slice is of the service that was asked for, or of none."""
    labels = (made.get("metadata") or {}).get("labels") or {}
    service = labels.get("kubernetes.io/service-name")
    return service in (None, request.query["labelSelector"].partition("=")[2])


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@dataclass(eq=False)
class _Watch:
    connection: socket.socket
    is_over: bool = False
    is_abrupt: bool = False

    def end(self, abruptly: bool) -> None:
        self.is_over = True
        self.is_abrupt = abruptly
        if abruptly:
            _cut(self.connection)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, api: ApiServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self.connections: list[socket.socket] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes in the midst of an answer, as it may


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        request = self._read()
        status, answer = self.server.api.answer(request)
        if request.verb == "watch" and status == 200:
            self._follow(request)
        else:
            self._answer(
                status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            )

    def _read(self) -> Request:
        url = urlsplit(self.path)
        assert url.path.startswith((SLICES, REVIEWS, SECRETS)), self.path
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
        verb, name = VERBS[self.command], url.path.removeprefix(SECRETS).lstrip("/")
        if url.path == SLICES:
            verb, name = "watch" if query.get("watch", "").lower() == "true" else "list", ""
        elif verb == "create":
            name = (body.get("metadata") or {}).get("name", "")
        return Request(verb, name, url.path, query, self.headers["Authorization"], body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _follow(self, request: Request) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        watch = _Watch(self.connection)
        for event in self.server.api.follow(watch, request):
            line = json.dumps(event).encode() + b"\n"
            middle = len(line) // 2  # an event needs not be one chunk
            for part in line[:middle], line[middle:]:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        if watch.is_abrupt:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")
