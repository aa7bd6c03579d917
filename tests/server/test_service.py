from __future__ import annotations

import asyncio
import datetime
import errno
import json
import signal
import socket
from pathlib import Path

import pytest

from pingpong.ops.settings import ServeSettings
from pingpong.ping import PROTOCOL, encode_ping
from pingpong.server import service
from pingpong.server.service import (
    ServeError,
    answer_what_has_come,
    endpoint_config,
    get_certificate,
    make_hosts,
    start,
)
from pingpong.server.tls import make_certificate
from pingpong.webtransport.asyncio import connect
from tests.processes import Process, run, serving

NOW = datetime.datetime.now(datetime.UTC)


def settings(**changes: object) -> ServeSettings:
    return ServeSettings(bind_host="127.0.0.1", bind_port=0, **changes)  # type: ignore[arg-type]


def write_certificate(folder: Path, name: str = "a") -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization

    made = make_certificate(["localhost", "127.0.0.1"], NOW)
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(made.pem())
    key_file.write_bytes(
        made.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


# What it starts with


@pytest.mark.parametrize(
    ("bind_host", "name", "hosts"),
    [
        ("::", "box", ["localhost", "127.0.0.1", "::1", "box"]),
        ("0.0.0.0", "", ["localhost", "127.0.0.1", "::1"]),
        ("192.0.2.7", "localhost", ["localhost", "127.0.0.1", "::1", "192.0.2.7"]),
        ("fe80::1%eth0", "box.", ["localhost", "127.0.0.1", "::1", "fe80::1"]),
        ("127.0.0.1", "not a name", ["localhost", "127.0.0.1", "::1"]),
    ],
)
def test_made_certificate_is_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, bind_host: str, name: str, hosts: list[str]
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert make_hosts(bind_host) == hosts
    get_certificate(ServeSettings(bind_host=bind_host), NOW)


def test_a_host_that_no_certificate_can_be_for() -> None:
    with pytest.raises(ServeError, match=r"cannot listen on not a host: .*\(--bind-host\)"):
        get_certificate(ServeSettings(bind_host="not a host"), NOW)


def test_certificate_from_files(tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    loaded = get_certificate(settings(tls_cert_file=cert_file, tls_key_file=key_file), NOW)
    assert loaded.pem() == cert_file.read_bytes()


def test_endpoint_config() -> None:
    made = make_certificate(["localhost"], NOW)
    config = endpoint_config(
        settings(idle_timeout=3, max_connections=4, max_handshakes=5, max_streams=6), made
    )
    assert (config.idle_timeout, config.max_connections, config.max_handshakes) == (3, 4, 5)
    assert config.windows.streams_bidi == 6 + 16  # each session has a stream of its own
    assert config.certificate is made.certificate


async def test_limits_are_those_of_the_settings() -> None:
    made = make_certificate(["localhost"], NOW)
    listener = start(settings(max_message_size=40), made)
    try:
        url = f"https://127.0.0.1:{listener.port}/ping"
        async with await connect(url, certificate_hash=made.sha256) as session:
            stream = await session.create_unidirectional_stream()
            await stream.close(b"ping" + bytes(36))
            answers = session.incoming_unidirectional_streams
            assert await (await answers.get()).read_all() == b"pong" + bytes(36)
            stream = await session.create_unidirectional_stream()
            await stream.close(b"ping" + bytes(37))
            session.datagrams.send(b"ping")
            assert await session.datagrams.receive() == b"pong"
    finally:
        await listener.close()


# Where it cannot start


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EADDRINUSE, "UDP port 0 of 127.0.0.1 is in use: choose another with --bind-port"),
        (errno.EACCES, "needs more rights: choose one above 1023"),
        (errno.EADDRNOTAVAIL, r"Cannot assign requested address \(--bind-host, --bind-port\)"),
    ],
)
async def test_why_it_cannot_listen(
    monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    def listen(*arguments: object, **options: object) -> None:
        raise OSError(number, "Cannot assign requested address")

    monkeypatch.setattr(service, "listen", listen)
    with pytest.raises(ServeError, match=text):
        start(settings(), make_certificate(["localhost"], NOW))


def fails(*words: str) -> str:
    status, out, err = run("serve", "--bind-host=127.0.0.1", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    return line


def test_port_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        line = fails(f"--bind-port={port}")
    assert line == (
        f"pingpong: UDP port {port} of 127.0.0.1 is in use: choose another with --bind-port,"
        " or 0 for a free one"
    )


def test_key_of_another_certificate(tmp_path: Path) -> None:
    cert_file, _ = write_certificate(tmp_path, "a")
    _, other = write_certificate(tmp_path, "b")
    line = fails(f"--tls-cert-file={cert_file}", f"--tls-key-file={other}")
    assert line.startswith(f"pingpong: the key in {other} does not belong to the certificate in")


def test_no_key(tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    key_file.unlink()
    line = fails(f"--tls-cert-file={cert_file}", f"--tls-key-file={key_file}")
    assert line.startswith(f"pingpong: cannot read the key file {key_file}: no such file")


# How it ends


async def test_what_is_in_the_socket_at_the_end_is_answered() -> None:
    made = make_certificate(["localhost"], NOW)
    listener = start(settings(), made)
    count = 200
    try:
        url = f"https://127.0.0.1:{listener.port}/ping"
        session = await connect(url, certificate_hash=made.sha256, protocols=[PROTOCOL])
        async with session:
            assert session._client is not None
            for seq in range(count):
                assert session.datagrams.send(encode_ping(seq, 0))
                session._client.endpoint.flush()
            # Nobody has had a turn: all of it waits in the kernel.
            answer_what_has_come(listener)
            listener.drain()
            closing = asyncio.create_task(listener.close(0, "over"))
            answers = 0
            async for _ in session.datagrams:
                answers += 1
            assert (await session.closed).reason == "over"
            await closing
    finally:
        await listener.close()
    # Congestion control may have kept some from leaving; what left is answered.
    handler = listener._handler
    assert isinstance(handler, service.PingServer)
    assert handler.counters.received["datagram"] == handler.counters.answered["datagram"] == answers
    assert answers >= 10


def test_sigterm_under_load_loses_nothing() -> None:
    with serving() as (server, ping):
        words = [*ping, "--json", "-i0.002", "--mode=stream"]
        with Process(*words) as client, Process(*words[:-1]) as other:
            for one in (client, other):
                one.read_until('"seq": 50,')
            server.send(signal.SIGTERM)
            for one in (client, other):
                status, out, err = one.finish()
                assert status == 2
                assert err.endswith("the server closed the session: the server is shutting down\n")
                summary = json.loads(out.splitlines()[-1])
                assert summary["lost"] == 0
                assert summary["received"] >= 50
                # What was asked after it had gone is waited for, not lost.
                assert summary["sent"] == summary["received"] + summary["waiting"]
                assert summary["waiting"] <= 25
        status, out, err = server.finish()
        assert (status, out) == (0, "")
        assert [json.loads(line)["event"] for line in err.splitlines()] == ["stopping", "stopped"]


def test_a_second_signal_ends_it_at_once() -> None:
    with serving() as (server, ping), Process(*ping) as client:
        client.read_until("seq=1 ")
        client.send(signal.SIGSTOP)  # so that there is something to wait for
        server.send(signal.SIGTERM)
        assert server.read_event("stopping")["connections"] == 1
        server.send(signal.SIGTERM)
        status, _, err = server.finish()
        assert status == 128 + signal.SIGTERM
        assert "stopped" not in err


def test_sigint_is_as_good() -> None:
    with serving() as (server, _):
        server.send(signal.SIGINT)
        assert server.finish()[0] == 0
