"""What to try about a connection that could not be made: for people."""

from __future__ import annotations

from ...link import LinkError
from ...settings import PingSettings
from ...webtransport.asyncio import Cause

_LOG = "the server's log says more"
_ADVICE = {
    Cause.NAME: "check the name, or give an address",
    Cause.NO_ANSWER: "a firewall between here and there that drops UDP, or a wrong port?",
    Cause.REFUSED_HERE: "a firewall of this machine, or a route that forbids it?",
    Cause.UNREACHABLE: "nothing listens there: a wrong port, or the server is down",
    Cause.CERTIFICATE: "give --ca FILE for its authority, --cert-hash for exactly this one,"
    " or --insecure for a test",
    Cause.ALPN: "that is another protocol's port: WebTransport needs HTTP/3",
    Cause.REFUSED: _LOG,
    Cause.NO_WEBTRANSPORT: "that server speaks HTTP/3, but not WebTransport: another port or host?",
    Cause.STATUS: _LOG,
    Cause.SESSION: _LOG,
}
_HASH_ADVICE = (
    "if the server's log shows this SHA-256, give it to --cert-hash; serve --state-dir keeps the"
    " certificate across restarts"
)
_STATUS_ADVICE = {
    404: "is the path right? pingpong answers on /ping",
    405: "is the path right? pingpong answers on /ping",
    429: "the server has enough sessions of this client, or at all: try again later",
    503: "the server is full, or leaving: try again later",
}


def with_advice(failure: LinkError, settings: PingSettings) -> str:
    """What went wrong, and what to try about it with these settings, in one line."""
    text = _advice(failure, settings)
    return f"{failure} ({text})" if text else str(failure)


def _advice(failure: LinkError, settings: PingSettings) -> str:
    error = failure.cause
    if error is None:
        return ""
    if error.cause is Cause.NAME and (settings.ipv4 or settings.ipv6):
        letter = "-4" if settings.ipv4 else "-6"
        return f"check the name, or leave out {letter}: it may have addresses of the other kind"
    if error.cause is Cause.CERTIFICATE and settings.cert_hash is not None:
        return _HASH_ADVICE
    if error.status == 401:
        if settings.token_file is None:
            return "the server wants a token: give --token-file FILE"
        return f"the token in {settings.token_file} is not, or no longer, one that the server takes"
    if error.status == 403:
        if settings.token_file is None:
            return "the server keeps it for others: with a token, give --token-file FILE"
        return f"the token in {settings.token_file} is not for somebody who may do this"
    if error.status is not None:
        return _STATUS_ADVICE.get(error.status, _LOG)
    return _ADVICE[error.cause]
