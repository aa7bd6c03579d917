"""Why an attempt to connect failed, and what that means for the next one."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from cryptography.x509 import Certificate

from ..webtransport import Address
from ..webtransport.asyncio import Cause, ConnectError

CONNECT_RESULTS = (
    *("ok", "dns", "timeout", "refused", "tls", "alpn", "settings", "http_status"),
    "unauthorized",
)
"""The results of an attempt to connect: values of a metric's label."""


class Failure(Enum):
    """How an attempt to connect failed, as far as the next one depends on it."""

    REFUSED = "refused"
    """The host reports that the port is closed."""
    NO_ANSWER = "no answer"
    """No answer within the timeout."""
    OTHER = "other"
    """A failure that another attempt will probably not change."""


FAILURES = {
    Cause.NAME: ("dns", Failure.OTHER),
    Cause.NO_ANSWER: ("timeout", Failure.NO_ANSWER),
    Cause.REFUSED_HERE: ("refused", Failure.NO_ANSWER),
    Cause.UNREACHABLE: ("refused", Failure.REFUSED),
    Cause.CERTIFICATE: ("tls", Failure.OTHER),
    Cause.ALPN: ("alpn", Failure.OTHER),
    Cause.REFUSED: ("refused", Failure.OTHER),
    Cause.NO_WEBTRANSPORT: ("settings", Failure.OTHER),
    Cause.STATUS: ("http_status", Failure.OTHER),
    Cause.SESSION: ("refused", Failure.OTHER),
}
"""The result, of `CONNECT_RESULTS`, and the failure of each cause."""


class LinkError(Exception):
    """No session could be opened; the text says why.

    `result` is one of `CONNECT_RESULTS`, and `failure` is for the next attempt. `cause` is the
    error of WebTransport, or None. `not_after` is when the server's certificate expires, in
    seconds since 1970, or None. `resolve_ns` is the duration of the lookup in nanoseconds, None if
    it failed. `tried` are the addresses that were tried.
    """

    def __init__(
        self,
        result: str,
        message: str,
        cause: ConnectError | None = None,
        resolve_ns: int | None = None,
        tried: Collection[Address] = (),
    ) -> None:
        super().__init__(message)
        self.tried = tried
        self.resolve_ns = resolve_ns
        self.result = result
        self.cause = cause
        self.failure = Failure.OTHER if cause is None else FAILURES[cause.cause][1]
        self.not_after = None if cause is None else not_after(cause.certificate)


def not_after(certificate: Certificate | None) -> float | None:
    """When a certificate expires, in seconds since 1970; None without one."""
    return None if certificate is None else certificate.not_valid_after_utc.timestamp()
