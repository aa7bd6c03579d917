"""Why a session could not be opened: a cause for programs, and a text for people."""

from __future__ import annotations

import re
from enum import Enum

from cryptography.x509 import Certificate

from ..errors import ErrorCode, SessionClosedError
from ..events import ConnectionClosed, SessionClosed
from ..text import mask_url, printable

_CRYPTO_ERROR = 0x100
_NO_APPLICATION_PROTOCOL = 120
_CERTIFICATE_EXPIRED = 45
_REFUSED = 0x02
# aioquic: DNSPattern(pattern=b'a.test'), IPAddressPattern(pattern=IPv4Address('127.0.0.1')).
# quinn: DnsName("a.test"), IpAddress(127.0.0.1).
_NAMES = re.compile(r"""(?:pattern=(?:b|IPv[46]Address\()?'?|DnsName\("|IpAddress\("?)([^')"]+)""")
_RUSTLS = {
    "CaUsedAsEndEntity": "it is an authority's own, which the engine quinn trusts by its SHA-256 only",
    "UnknownIssuer": "its issuer is not known",
    "BadSignature": "its signature is wrong",
}
"""What names in the engine quinn's reasons mean."""
_OTHER_NAME = ("doesn't match", "service_identity", "not valid for name")


class Step(Enum):
    """The steps of opening a session, in order."""

    RESOLVE = "resolve"
    HANDSHAKE = "handshake"
    SESSION = "session"


class Cause(Enum):
    """Why it failed."""

    NAME = "name"
    """The name has no address."""
    NO_ANSWER = "no-answer"
    """No packet arrived: a firewall, a wrong port, or no such host."""
    REFUSED_HERE = "refused-here"
    """This machine blocks outgoing packets, for example by its own firewall."""
    UNREACHABLE = "unreachable"
    """The network or the host reported that it cannot be reached (ICMP)."""
    CERTIFICATE = "certificate"
    """The certificate is not trusted, not for this name, expired, or not the pinned one."""
    ALPN = "alpn"
    """A QUIC server that does not speak HTTP/3."""
    REFUSED = "refused"
    """The server, or QUIC itself, ended the handshake."""
    NO_WEBTRANSPORT = "no-webtransport"
    """An HTTP/3 server without WebTransport."""
    STATUS = "status"
    """The server answered with an HTTP status other than 2xx."""
    SESSION = "session"
    """The server ended the session before it began."""

    @property
    def step(self) -> Step:
        """The step that failed."""
        if self is Cause.NAME:
            return Step.RESOLVE
        if self in (Cause.NO_WEBTRANSPORT, Cause.STATUS, Cause.SESSION):
            return Step.SESSION
        return Step.HANDSHAKE


class ConnectError(SessionClosedError):
    """No session could be opened.

    `cause` is for programs, the text for people. `status` is the HTTP status of the server's answer,
    or None. `certificate` is the server's, whether it was accepted or not, or None if it sent none.
    """

    def __init__(self, cause: Cause, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.certificate: Certificate | None = None


def connection_failure(
    closed: ConnectionClosed, host: str, *, is_authenticated: bool = True
) -> ConnectError:
    """Explain the end of a connection that was never ready.

    Without `is_authenticated` the peer's close may be forged; the text says so.
    """
    reason = printable(closed.reason)
    if closed.code == ErrorCode.WT_REQUIREMENTS_NOT_MET and closed.is_application:
        return ConnectError(Cause.NO_WEBTRANSPORT, f"no WebTransport on that server: {reason}")
    if closed.timed_out:
        return ConnectError(Cause.NO_ANSWER, "the server stopped answering during the handshake")
    note = " (not authenticated)" if closed.by_peer and not is_authenticated else ""
    if not closed.is_application and _CRYPTO_ERROR <= closed.code < _CRYPTO_ERROR + 0x100:
        return _tls_failure(closed, closed.code - _CRYPTO_ERROR, host, note)
    whose = "the server" if closed.by_peer else "this side"
    if closed.code == _REFUSED and not closed.is_application:
        return ConnectError(Cause.REFUSED, "the server refuses connections: it is full or leaving")
    text = f"{whose} ended the connection with {closed.code_name}"
    return ConnectError(Cause.REFUSED, f"{text}: {reason}{note}" if reason else f"{text}{note}")


def _tls_failure(closed: ConnectionClosed, alert: int, host: str, note: str) -> ConnectError:
    if alert == _NO_APPLICATION_PROTOCOL:
        return ConnectError(Cause.ALPN, "the server speaks QUIC but not HTTP/3")
    if closed.by_peer:
        text = f"the server refused the TLS handshake: alert {alert}{note}"
        return ConnectError(Cause.REFUSED, text)
    if any(text in closed.reason for text in _OTHER_NAME):
        names = printable(", ".join(_NAMES.findall(closed.reason))) or "another name"
        return ConnectError(Cause.CERTIFICATE, f"the certificate is for {names}, not for {host}")
    reason = printable(_plain(closed.reason))
    if alert == _CERTIFICATE_EXPIRED:
        return ConnectError(Cause.CERTIFICATE, f"the certificate is out of date: {reason}")
    return ConnectError(Cause.CERTIFICATE, f"the certificate is not trusted: {reason}")


def _plain(reason: str) -> str:
    """The reason in words, where it has names of rustls."""
    return next((text for name, text in _RUSTLS.items() if name in reason), reason)


def session_failure(closed: SessionClosed, path: str) -> ConnectError:
    """Explain the end of a session that was never established."""
    path = mask_url(path)
    if closed.status is not None:
        return ConnectError(
            Cause.STATUS, f"the server answered {closed.status} for {path}", closed.status
        )
    return ConnectError(Cause.SESSION, f"the session for {path} was not opened: {closed}")
