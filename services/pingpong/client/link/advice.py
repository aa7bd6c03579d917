"""What went wrong with a connection or a session, and what to try: for people."""

from __future__ import annotations

from ...settings import PingSettings
from ...webtransport import SessionClosed, printable
from ...webtransport.asyncio import Cause, ConnectError

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
_STATUS_ADVICE = {
    404: "is the path right? pingpong answers on /ping",
    405: "is the path right? pingpong answers on /ping",
    429: "the server has enough sessions of this client, or at all: try again later",
    503: "the server is full, or leaving: try again later",
}


def advice(error: ConnectError, settings: PingSettings) -> str:
    """What to try about a connection that could not be made with these settings."""
    if error.cause is Cause.NAME and (settings.ipv4 or settings.ipv6):
        letter = "-4" if settings.ipv4 else "-6"
        return f"check the name, or leave out {letter}: it may have addresses of the other kind"
    if error.status == 401:
        if settings.token_file is None:
            return "the server wants a token: give --token-file FILE"
        return f"the token in {settings.token_file} is not, or no longer, one that the server takes"
    if error.status == 403:
        if settings.token_file is None:
            return "the server keeps it for others: with a token, give --token-file FILE"
        return f"whoever the token in {settings.token_file} is for may not do this"
    if error.status is not None:
        return _STATUS_ADVICE.get(error.status, _LOG)
    return _ADVICE[error.cause]


def describe_end(closed: SessionClosed) -> str:
    """Why a session that was established is over."""
    if closed.code is None or not closed.by_peer:
        return str(closed)
    code = f" (code {closed.code})" if closed.code else ""
    reason = f": {printable(closed.reason)}" if closed.reason else ""
    return f"the server closed the session{code}{reason}"
