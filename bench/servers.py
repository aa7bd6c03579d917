"""The servers that are measured, the load generator, and clients: how each is started."""

from __future__ import annotations

import datetime
import functools
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from bench.processes import ROOT, Process
from pingpong.webtransport.certificates import make_certificate
from pingpong.webtransport.quic.engines import EngineMissingError, choose

GENERATOR = ROOT / "build" / "bench" / "generator"
FOREIGN = ROOT / "bench" / "foreign"
PEERS = ROOT / "tests" / "interop" / "peers"


class MissingError(Exception):
    """Something cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its command, for a certificate's file and a port, and what it speaks."""

    command: Callable[[str, int], list[str]]
    speaks: str = "webtransport"


def _webtransport_go(certificate: str, port: int) -> list[str]:
    build_generator()
    return [str(GENERATOR), "serve", str(port), certificate, certificate]


def _aioquic(certificate: str, port: int) -> list[str]:
    script = str(FOREIGN / "aioquic_server.py")
    return [sys.executable, "-P", script, str(port), certificate, certificate]


def _aiopquic(certificate: str, port: int) -> list[str]:
    script = str(FOREIGN / "aiopquic-0.6.py")
    return [_python_with("aiopquic-0.6"), script, str(port), certificate, certificate]


def _pywebtransport(certificate: str, port: int) -> list[str]:
    script = str(PEERS / "pywebtransport-0.21.py")
    python = _python_with("pywebtransport-0.21")
    return [python, script, "server", "off", str(port), certificate, certificate]


def _pingpong(engine: str, certificate: str, port: int) -> list[str]:
    _need(engine)
    return [
        *(sys.executable, "-P", "-m", "pingpong", "serve", f"--engine={engine}"),
        *("--bind-host=127.0.0.1", f"--bind-port={port}", "--admin-port=0"),
        *(f"--tls-cert-file={certificate}", f"--tls-key-file={certificate}"),
        # Messages are counted against the limit, which is never reached.
        *("--idle-timeout=600", "--rate-limit=1000000", "--self-ping-interval=0"),
        "--log-format=json",
    ]


def _bare(engine: str, certificate: str, port: int) -> list[str]:
    if engine != "none":
        _need(engine)
    return [sys.executable, "-P", "-m", "bench.bare", engine, str(port), certificate]


SERVERS = {
    "webtransport-go": Server(_webtransport_go),
    "aiopquic": Server(_aiopquic),
    "pywebtransport": Server(_pywebtransport),
    "aioquic": Server(_aioquic),
    "pingpong-aioquic": Server(functools.partial(_pingpong, "aioquic")),
    "pingpong-quinn": Server(functools.partial(_pingpong, "quinn")),
    "bare-aioquic": Server(functools.partial(_bare, "aioquic"), "quic"),
    "bare-quinn": Server(functools.partial(_bare, "quinn"), "quic"),
    "bare-udp": Server(functools.partial(_bare, "none"), "udp"),
}
CLIENTS = ("aioquic", "pingpong-aioquic", "pingpong-quinn")


def start_server(name: str, certificate: Path, root: Path = ROOT) -> tuple[Process, int]:
    """Start a server, ours with the code of a checkout. Returns its port too.

    Raises `MissingError`, `ProcessError`.
    """
    port = free_port()
    server = Process(name, SERVERS[name].command(str(certificate), port), root)
    try:
        server.wait()
    except BaseException:
        server.close()
        raise
    server.drain()
    return server, port


def start_generator(name: str, port: int) -> Process:
    """Start the load generator for a server on a port. Raises `MissingError`, `ProcessError`."""
    build_generator()
    command = [str(GENERATOR), "load", SERVERS[name].speaks, str(port)]
    return _started(Process(f"the generator for {name}", command))


def start_client(name: str, port: int) -> Process:
    """Start a client that does what the generator does. Raises `MissingError`, `ProcessError`."""
    _need(name.rpartition("-")[2])
    command = [sys.executable, "-P", "-m", "bench.clients", name, str(port)]
    return _started(Process(f"{name}'s client", command))


def _started(process: Process) -> Process:
    try:
        process.wait()
    except BaseException:
        process.close()
        raise
    return process


@functools.cache
def build_generator() -> None:
    """Build the load generator, if that is not done. Raises `MissingError`."""
    if shutil.which("go") is None:
        raise MissingError("the load generator and webtransport-go need Go (https://go.dev)")
    done = subprocess.run(
        ["go", "build", "-o", str(GENERATOR), "."],
        cwd=ROOT / "bench" / "generator",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"the load generator cannot be built:\n{done.stderr.strip()}")


def write_certificate(file: Path) -> None:
    """Create the certificate and the key of all servers."""
    made = make_certificate(["localhost", "127.0.0.1"], datetime.datetime.now(datetime.UTC))
    key = made.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.touch(0o600)
    file.write_bytes(made.pem() + key)


def free_port() -> int:
    """A UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _need(engine: str) -> None:
    if engine == "quinn":
        try:
            choose("quinn", server=True)
        except EngineMissingError as error:
            raise MissingError(str(error)) from None


def _python_with(name: str) -> str:
    """The interpreter that has a peer's library."""
    python = peer_python(name)
    module = name.partition("-")[0]
    check = [str(python), "-c", f"import {module}"]
    if not python.exists() or subprocess.run(check, capture_output=True, check=False).returncode:
        raise MissingError(
            f"{module} is not installed in {python.parent.parent.name}: `make bench-peers` does"
            " that, where there is Python 3.12 or newer"
        )
    return str(python)


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, which may not be there."""
    return Path(f"{sys.prefix}-peers") / name / "bin" / "python"
