from __future__ import annotations

import pytest

from pingpong.webtransport.asyncio import SessionClosedError
from pingpong.webtransport.asyncio.failures import (
    Cause,
    ConnectError,
    Step,
    connection_failure,
    session_failure,
)
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.events import ConnectionClosed, SessionClosed

CRYPTO = 0x100
MISMATCH = (
    "hostname 'b.test' doesn't match DNSPattern(pattern=b'a.test'), DNSPattern(pattern=b'*.c')"
)

MISMATCH_OF_ADDRESSES = (
    "hostname 'b.test' doesn't match DNSPattern(pattern=b'a.test'), "
    "IPAddressPattern(pattern=IPv4Address('127.0.0.1')), IPAddressPattern(pattern=IPv6Address('::1'))"
)


@pytest.mark.parametrize(
    ("closed", "cause", "text"),
    [
        (
            ConnectionClosed(ErrorCode.WT_REQUIREMENTS_NOT_MET, "no settings", False, True),
            Cause.NO_WEBTRANSPORT,
            "no WebTransport on that server: no settings",
        ),
        (
            ConnectionClosed(1, "Idle timeout", timed_out=True),
            Cause.NO_ANSWER,
            "the server stopped answering during the handshake",
        ),
        (
            ConnectionClosed(CRYPTO + 120, "", by_peer=True),
            Cause.ALPN,
            "the server speaks QUIC but not HTTP/3",
        ),
        (
            ConnectionClosed(CRYPTO + 40, "", by_peer=True),
            Cause.REFUSED,
            "the server refused the TLS handshake: alert 40",
        ),
        (
            ConnectionClosed(CRYPTO + 42, MISMATCH),
            Cause.CERTIFICATE,
            "the certificate is for a.test, *.c, not for b.test",
        ),
        (
            ConnectionClosed(CRYPTO + 42, MISMATCH_OF_ADDRESSES),
            Cause.CERTIFICATE,
            "the certificate is for a.test, 127.0.0.1, ::1, not for b.test",
        ),
        (
            ConnectionClosed(CRYPTO + 45, "Certificate is no longer valid"),
            Cause.CERTIFICATE,
            "the certificate is out of date: Certificate is no longer valid",
        ),
        (
            ConnectionClosed(CRYPTO + 42, "self-signed certificate"),
            Cause.CERTIFICATE,
            "the certificate is not trusted: self-signed certificate",
        ),
        (
            ConnectionClosed(2, "", by_peer=True),
            Cause.REFUSED,
            "the server refuses connections: it is full or leaving",
        ),
        (
            ConnectionClosed(0x0B, "a token", by_peer=True),
            Cause.REFUSED,
            "the server ended the connection with QUIC 0xb: a token",
        ),
        (
            ConnectionClosed(ErrorCode.H3_SETTINGS_ERROR, "", False, True),
            Cause.REFUSED,
            "this side ended the connection with H3_SETTINGS_ERROR",
        ),
    ],
)
def test_what_the_end_of_a_connection_means(
    closed: ConnectionClosed, cause: Cause, text: str
) -> None:
    error = connection_failure(closed, "b.test")
    assert (error.cause, str(error), error.status) == (cause, text, None)


def test_what_the_end_of_a_session_means() -> None:
    error = session_failure(SessionClosed(status=503), "/p")
    assert (error.cause, error.status) == (Cause.STATUS, 503)
    assert str(error) == "the server answered 503 for /p"
    error = session_failure(SessionClosed(error="the peer reset the session"), "/p")
    assert (error.cause, error.status) == (Cause.SESSION, None)
    assert str(error) == "the session for /p was not opened: the peer reset the session"


def test_every_cause_belongs_to_a_step() -> None:
    steps = {cause: cause.step for cause in Cause}
    assert steps == {
        Cause.NAME: Step.RESOLVE,
        Cause.NO_ANSWER: Step.HANDSHAKE,
        Cause.REFUSED_HERE: Step.HANDSHAKE,
        Cause.UNREACHABLE: Step.HANDSHAKE,
        Cause.CERTIFICATE: Step.HANDSHAKE,
        Cause.ALPN: Step.HANDSHAKE,
        Cause.REFUSED: Step.HANDSHAKE,
        Cause.NO_WEBTRANSPORT: Step.SESSION,
        Cause.STATUS: Step.SESSION,
        Cause.SESSION: Step.SESSION,
    }


def test_a_failed_connection_is_a_closed_session() -> None:
    assert isinstance(ConnectError(Cause.NAME, "no address"), SessionClosedError)
