"""A Kubernetes API server of ours, as far as TokenReview goes, and tokens to ask it about."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOOD = {"authenticated": True, "audiences": ["pingpong"], "user": {"username": "a"}}
PROBE = "e30.e30.e30"
"""What a server asks about at its start, to find out whether it may."""


def jwt(name: str, **claims: object) -> bytes:
    parts = ({"alg": "none"}, {"sub": name, **claims})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*texts, b"signature"])


class Api:
    """An API server that is asked for TokenReviews; `answer` says what it answers."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answer: Callable[[str], dict[str, Any] | int | bytes] = lambda token: GOOD
        self.held = threading.Event()
        self.held.set()
        self.connections: list[socket.socket] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api.connections.append(self.connection)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                token = body["spec"]["token"]
                if token != PROBE:
                    api.asked.append(token)
                    api.bodies.append(body)
                    api.credentials.append(self.headers["authorization"])
                    api.paths.append(self.path)
                    api.held.wait(10)
                answer = {"authenticated": False} if token == PROBE else api.answer(token)
                status = answer if isinstance(answer, int) else 201
                content = (
                    answer
                    if isinstance(answer, bytes)
                    else json.dumps(
                        {**body, "status": answer}
                        if isinstance(answer, dict)
                        else {"kind": "Status", "message": f"about {token}", "code": status}
                    ).encode()
                )
                with contextlib.suppress(OSError):  # nobody waits any more
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port: int = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.held.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def write_kubeconfig(file: Path, port: int, token: str = "own-token") -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    file.write_text(json.dumps(config))
