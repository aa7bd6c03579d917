from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as serve_quic
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

from pingpong.webtransport.asyncio import (
    Cause,
    ClientConnection,
    ConnectError,
    EndpointConfig,
    SessionWaiter,
    Target,
    connect,
    establish,
    listen,
    open_connection,
    race,
    resolve,
)
from pingpong.webtransport.asyncio import target as targets
from pingpong.webtransport.udp.pump import Pump
from tests.support.certificates import Authority
from tests.support.processes import sockets
from tests.webtransport.asyncio.peers import (
    closed_port,
    echo,
    joined,
    on_a_loop,
    on_both_loops,
    serving,
    silent_socket,
    stay,
    task,
    trusted,
    until,
)


@contextlib.contextmanager
def no_socket_left() -> Iterator[None]:
    before = sockets()
    yield
    assert sockets() == before


async def failure(url: str, **options: Any) -> ConnectError:
    options.setdefault("timeout", 5)
    with no_socket_left(), pytest.raises(ConnectError) as raised:
        await connect(url, **options)
    return raised.value


@contextlib.asynccontextmanager
async def bare_server(alpn: str) -> Any:
    """A server of aioquic's own, with its HTTP/3 as it comes."""

    class Protocol(QuicConnectionProtocol):
        http: H3Connection | None = None

        def quic_event_received(self, event: QuicEvent) -> None:
            if self.http is None:
                self.http = H3Connection(self._quic)
            self.http.handle_event(event)

    configuration = QuicConfiguration(is_client=False, alpn_protocols=[alpn])
    configuration.certificate = trusted().certificate
    configuration.private_key = trusted().private_key
    port = closed_port()
    server = await serve_quic(
        "127.0.0.1", port, configuration=configuration, create_protocol=Protocol
    )
    try:
        yield f"https://127.0.0.1:{port}/"
    finally:
        server.close()
        await asyncio.sleep(0)


# Where to.


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://a.test", "a.test", 443, "/", "a.test"),
        ("https://a.test:443/x", "a.test", 443, "/x", "a.test"),
        ("https://A.test:4433/x?y=z", "a.test", 4433, "/x?y=z", "a.test:4433"),
        ("https://[::1]:4433", "::1", 4433, "/", "[::1]:4433"),
        ("https://[fe80::1%25eth0]/", "fe80::1%eth0", 443, "/", "[fe80::1]"),
    ],
)
def test_a_target_is_read_from_a_url(
    url: str, host: str, port: int, path: str, authority: str
) -> None:
    target = Target.from_url(url)
    assert (target.host, target.port, target.path) == (host, port, path)
    assert target.authority == authority


@pytest.mark.parametrize("url", ["http://a.test", "a.test", "https://", "https://a.test:x/"])
def test_what_is_no_target(url: str) -> None:
    with pytest.raises(ValueError, match=r"^the URL .* must have|^the URL .* must begin"):
        Target.from_url(url)


# Certificates.


@on_both_loops
async def test_a_given_authority(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(trusted().authority_pem)
    async with serving(echo) as server:
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{server.port}/"
            async with await connect(url, ca_file=str(ca_file)) as session:
                assert not session.closed.done()


@on_a_loop
async def test_the_systems_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(trusted().authority_pem)
    async with serving(echo) as server:
        url = f"https://localhost:{server.port}/"
        error = await failure(url)
        assert error.cause is Cause.CERTIFICATE
        assert "not trusted" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        async with await connect(url):
            pass


@on_a_loop
async def test_a_pin_and_no_check_at_all() -> None:
    async with serving(stay) as server:
        url = f"https://127.0.0.1:{server.port}/"
        async with await connect(url, certificate_hash=trusted().sha256):
            pass
        async with await connect(url, insecure=True):
            pass
        error = await failure(url, certificate_hash=bytes(32))
        assert error.cause is Cause.CERTIFICATE
        assert str(error) == (
            "the certificate is not trusted: its SHA-256 is"
            f" {trusted().sha256.hex()}, not the one that was given"
        )


@on_a_loop
async def test_certificates_that_are_not_good_enough(tmp_path: Path) -> None:
    for leaf, text in (
        (Authority().issue("other.test"), "the certificate is for other.test, not for localhost"),
        (Authority().issue("localhost", ends=-timedelta(hours=1)), "out of date"),
        (Authority().issue("localhost", begins=timedelta(hours=1)), "out of date"),
    ):
        ca_file = tmp_path / "ca.pem"
        ca_file.write_bytes(leaf.authority_pem)
        async with serving(stay, leaf=leaf) as server:
            error = await failure(f"https://localhost:{server.port}/", ca_file=str(ca_file))
        assert error.cause is Cause.CERTIFICATE
        assert text in str(error)
        assert error.certificate == leaf.certificate


@on_a_loop
async def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    error = await failure("https://127.0.0.1:1/", ca_file=str(tmp_path / "none.pem"))
    assert error.cause is Cause.CERTIFICATE
    assert str(error) == f"cannot read {tmp_path / 'none.pem'}: no such file or directory"
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"not a certificate")
    async with serving(stay) as server:
        error = await failure(f"https://127.0.0.1:{server.port}/", ca_file=str(garbage))
    assert error.cause is Cause.CERTIFICATE
    assert str(error) == f"no certificate in {garbage}: it must be a PEM file"


# Other servers.


@on_a_loop
async def test_a_server_with_another_protocol() -> None:
    async with bare_server("hq-interop") as url:
        error = await failure(url, certificate_hash=trusted().sha256)
    assert (error.cause, str(error)) == (Cause.ALPN, "the server speaks QUIC but not HTTP/3")


@on_a_loop
async def test_an_http3_server_without_webtransport() -> None:
    async with bare_server("h3") as url:
        error = await failure(url, certificate_hash=trusted().sha256)
    assert error.cause is Cause.NO_WEBTRANSPORT
    assert str(error).startswith("no WebTransport on that server: ")


@on_both_loops
async def test_a_path_that_is_not_there() -> None:
    async with serving(stay, decide=lambda request: 404) as server:
        with no_socket_left(), pytest.raises(ConnectError) as raised:
            await joined(server, "/nowhere")
    assert (raised.value.cause, raised.value.status) == (Cause.STATUS, 404)
    assert str(raised.value) == "the server answered 404 for /nowhere"


@on_a_loop
async def test_a_server_that_never_answers_the_request() -> None:
    class Slow:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: None

    listener = listen(Slow(), "127.0.0.1", config=trusted().config())  # type: ignore[arg-type]
    began = time.monotonic()
    error = await failure(
        f"https://127.0.0.1:{listener.port}/slow", certificate_hash=trusted().sha256, timeout=0.3
    )
    assert 0.25 < time.monotonic() - began < 1.2
    assert (error.cause, str(error)) == (Cause.SESSION, "no answer to the request for /slow")
    await listener.close()


@on_a_loop
async def test_a_server_that_is_about_to_leave() -> None:
    async with serving(stay) as server:
        target = Target("127.0.0.1", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target)
        server.drain()
        await until(lambda: client.connection.draining)
        with pytest.raises(ConnectError, match="no more sessions") as raised:
            await establish(client, SessionWaiter())
        assert raised.value.cause is Cause.SESSION
        await client.close()


# Nobody.


@on_both_loops
async def test_nobody_listens() -> None:
    began = time.monotonic()
    port = closed_port()
    error = await failure(f"https://127.0.0.1:{port}/")
    assert error.cause is Cause.UNREACHABLE
    assert str(error) == f"UDP port {port} is unreachable: Connection refused"
    assert time.monotonic() - began < 1


@on_both_loops
async def test_a_socket_that_never_answers() -> None:
    with silent_socket() as sock:
        port = sock.getsockname()[1]
        error = await failure(f"https://127.0.0.1:{port}/", timeout=0.3)
    assert error.cause is Cause.NO_ANSWER
    assert str(error) == f"no answer on UDP port {port} of 127.0.0.1 within 0.3 s"


@on_a_loop
async def test_a_server_that_is_heard_of_no_more_during_the_handshake() -> None:
    with silent_socket() as sock:
        error = await failure(
            f"https://127.0.0.1:{sock.getsockname()[1]}/", config=EndpointConfig(idle_timeout=0.2)
        )
    assert error.cause is Cause.NO_ANSWER


def lookups(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """What the system says of any name; an Event: nothing, until it is set."""

    def getaddrinfo(*arguments: Any, **options: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, threading.Event):
            answer.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "too late")
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def entry(family: int, *address: Any) -> tuple[Any, ...]:
    return (family, socket.SOCK_DGRAM, 17, "", address)


@on_a_loop
async def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    error = await failure("https://nowhere.invalid/")
    assert error.cause is Cause.NAME
    assert str(error) == "no address for nowhere.invalid: Name or service not known"


@on_a_loop
async def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(ValueError, match="1 to 63 between two dots"):
        await connect("https://" + "a" * 64 + ".invalid/")


@on_a_loop
async def test_a_lookup_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    lookups(monkeypatch, over)
    try:
        error = await failure("https://slow.invalid/", timeout=0.1)
    finally:
        # The program's end would not wait for it, as it does for the loop's own threads.
        asking = [thread for thread in threading.enumerate() if thread.name == "getaddrinfo"]
        assert [thread.daemon for thread in asking] == [True]
        over.set()
    assert error.cause is Cause.NAME
    assert str(error) == "no address for slow.invalid within 0.1 s"


@pytest.mark.parametrize("answered", [socket.AF_INET, socket.AF_INET6])
@on_a_loop
async def test_a_name_server_that_drops_questions_for_one_family(
    monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """The system waits for both, and so does who asks it for both."""
    over = threading.Event()
    asked: list[int] = []

    def getaddrinfo(*arguments: Any, family: int, **options: Any) -> Any:
        asked.append(family)
        if family != answered:
            over.wait()
        return [entry(answered, "192.0.2.1" if answered == socket.AF_INET else "::1", 1)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(targets, "RESOLUTION_DELAY", 0.01)
    try:
        [(family, _)] = await resolve(Target("a.test", 1))
    finally:
        over.set()
    assert family == answered
    assert sorted(asked) == sorted([socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6])


@on_a_loop
async def test_the_dot_that_makes_a_name_absolute_is_for_lookups_only() -> None:
    target = Target.from_url("https://host.test.:4433/ping")
    assert target.host == "host.test."
    assert target.authority == "host.test:4433"
    assert target.identity.server_name == "host.test"


@on_a_loop
async def test_a_packet_that_this_machine_refuses_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a firewall of its own does it; where that lasts, the error is about this machine."""
    refused = [PermissionError(errno.EPERM, "Operation not permitted")] * 2
    transmit = Pump._transmit

    def refuse(self: Pump, *arguments: Any, **options: Any) -> int:
        if self._connected and refused:
            self._failed(refused.pop())
            self.dropped_packets += 1
            return 1
        return transmit(self, *arguments, **options)

    monkeypatch.setattr(Pump, "_transmit", refuse)
    async with serving(stay) as server:
        target = Target("127.0.0.1", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target, timeout=20)
        await client.close()
        refused += [PermissionError(errno.EPERM, "Operation not permitted")] * 1000
        with pytest.raises(ConnectError) as raised:
            await open_connection(target, timeout=0.2)
        assert raised.value.cause is Cause.REFUSED_HERE
        assert "this machine blocks packets to 127.0.0.1: Operation" in str(raised.value)


@on_a_loop
async def test_an_address_that_this_machine_refuses_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a route does it that prohibits."""
    refused = [PermissionError(errno.EACCES, "Permission denied")] * 2
    begin = ClientConnection.begin

    def refuse(*arguments: Any) -> ClientConnection:
        if refused:
            raise refused.pop()
        return begin(*arguments)

    monkeypatch.setattr(ClientConnection, "begin", refuse)
    monkeypatch.setattr(race, "RETRY_ATTEMPT_DELAY", 0.02)
    async with serving(stay) as server:
        target = Target("127.0.0.1", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target)
        await client.close()
        refused += [PermissionError(errno.EACCES, "Permission denied")] * 1000
        with pytest.raises(ConnectError) as raised:
            await open_connection(target, timeout=0.2)
        assert raised.value.cause is Cause.REFUSED_HERE


# Several addresses.


@on_a_loop
async def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [("::1", 1, 0, 0), ("::2", 1, 0, 0), ("::3", 1, 0, 0)]
    answer = [entry(six, *address) for address in found]
    answer += [entry(four, "192.0.2.1", 1), entry(four, "192.0.2.1", 1)]
    lookups(monkeypatch, answer)
    assert await resolve(Target("a.test", 1)) == [
        (six, found[0]),
        (four, ("192.0.2.1", 1)),
        (six, found[1]),
        (six, found[2]),
    ]


@on_both_loops
async def test_a_dead_first_address_does_not_cost_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with silent_socket(socket.AF_INET6) as dead:
        async with serving(stay) as server:
            lookups(
                monkeypatch,
                [
                    entry(socket.AF_INET6, "::1", dead.getsockname()[1], 0, 0),
                    entry(socket.AF_INET, "127.0.0.1", server.port),
                ],
            )
            began = time.monotonic()
            before = sockets()
            session = await connect("https://localhost:1/", certificate_hash=trusted().sha256)
            async with session:
                assert time.monotonic() - began < 1
                assert session.remote_address[0] == "127.0.0.1"
                # The other attempt's socket is gone, not only forgotten.
                assert sockets() == before + 1


@on_a_loop
async def test_an_address_that_refuses_is_followed_by_the_next_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race, "CONNECTION_ATTEMPT_DELAY", 60)
    async with serving(stay, host="::1") as server:
        addresses: list[tuple[int, Any]] = [
            (socket.AF_INET, ("127.0.0.1", closed_port())),
            (socket.AF_INET6, ("::1", server.port, 0, 0)),
        ]
        target = Target("localhost", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target, addresses=addresses)
        assert client.address[0] == "::1"
        assert client.timings.resolve is None
        assert client.timings.handshake is not None
        await client.close()


@on_a_loop
async def test_when_all_fail_what_says_most_is_told() -> None:
    async with serving(stay) as server:
        with silent_socket() as silent:
            good = (socket.AF_INET, ("127.0.0.1", server.port))
            refused = (socket.AF_INET, ("127.0.0.1", closed_port()))
            quiet = (socket.AF_INET, silent.getsockname())
            target = Target("localhost", certificate_hash=bytes(32))
            for addresses, cause in (
                ((refused, good), Cause.CERTIFICATE),
                ((good, refused), Cause.CERTIFICATE),
                ((good, quiet), Cause.CERTIFICATE),
                ((quiet, good), Cause.CERTIFICATE),
                ((refused, quiet), Cause.NO_ANSWER),
                ((refused, refused), Cause.UNREACHABLE),
                ((), Cause.NAME),
            ):
                with no_socket_left(), pytest.raises(ConnectError) as raised:
                    await open_connection(target, addresses=addresses, timeout=0.4)
                assert raised.value.cause is cause


@on_a_loop
async def test_of_two_that_answer_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "CONNECTION_ATTEMPT_DELAY", 0)
    async with serving(stay) as server:
        address = (socket.AF_INET, ("127.0.0.1", server.port))
        before = sockets()
        target = Target("localhost", certificate_hash=trusted().sha256)
        client = await open_connection(target, addresses=[address] * 4)
        assert sockets() == before + 1
        await client.close()
        await until(lambda: not server.listener.connections)
    assert sockets() == before - 1


# Cancelled.


@pytest.mark.parametrize("turns", range(0, 60, 3))
@on_both_loops
async def test_a_cancelled_connect_leaves_nothing(turns: int) -> None:
    async with serving(stay) as server:
        with no_socket_left():
            connecting = task(joined(server))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            try:
                session = await connecting
            except asyncio.CancelledError:
                pass
            else:
                async with session:
                    pass
        await until(lambda: not server.listener.connections)


@on_a_loop
async def test_a_cancelled_close_leaves_nothing() -> None:
    async with serving(stay) as server:
        with no_socket_left():
            session = await joined(server)
            client = session._client
            assert client is not None
            # The server is not there to hear of it.
            server.listener.endpoint.pump._loop.remove_reader(server.listener.endpoint.pump._fd)
            closing = task(session.close())
            # Turns of the loop and no time: on a busy machine the wait might be over by then.
            while not session.closed.done():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not closing.done()
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()


@on_a_loop
async def test_all_who_close_are_told_when_it_is_closed() -> None:
    async with serving(stay) as server:
        session = await joined(server)
        began = time.monotonic()
        await asyncio.gather(*[session.close() for _ in range(3)])
        assert time.monotonic() - began < 0.5


@on_a_loop
async def test_a_session_that_fails_does_not_end_others_of_the_connection() -> None:
    async with serving(
        stay, decide=lambda request: 404 if request.path == "/no" else None
    ) as server:
        target = Target("localhost", server.port, "/no", certificate_hash=trusted().sha256)
        client = await open_connection(target)
        with pytest.raises(ConnectError):
            await establish(client, SessionWaiter())
        assert client.connection.closed is None
        await client.close()
