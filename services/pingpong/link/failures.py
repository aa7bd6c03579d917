"""Why there is no session, and what that means for the next attempt."""

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
"""What can become of an attempt: labels of a metric."""


class Failure(Enum):
    """How an attempt to connect failed, as far as it matters for the next one."""

    REFUSED = "refused"
    """The host says that nothing listens there."""
    NO_ANSWER = "no answer"
    """No answer came in all the time that an attempt has."""
    OTHER = "other"
    """By policy, or by what another attempt won't change soon."""


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
"""What each cause is called among `CONNECT_RESULTS`, and what it means for the next attempt."""


class LinkError(Exception):
    """There is no session; the text says why.

    `result` is one of `CONNECT_RESULTS`; `failure` says what it means for the next attempt;
    `cause` is what WebTransport says, where it came to that; `not_after` is when the certificate
    expires that the server showed, in seconds since 1970; `resolve_ns` is how long the lookup took,
    where that succeeded; `tried` are the addresses that the attempt went to.
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
