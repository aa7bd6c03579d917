"""Negotiates the draft: from the settings of both sides to one `Draft`.

Each draft has its own setting, so an endpoint can offer all of them (draft-16, section 7.1). The
drafts share stream headers, datagrams and capsules. They differ in the upgrade token, in the
settings that a side must send, and in session flow control. Other modules use the `Draft`, not the
settings.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from .errors import ConnectionProtocolError, ErrorCode, StreamProtocolError
from .limits import Limits


class Setting(IntEnum):
    """HTTP/3 settings that are sent or parsed."""

    QPACK_MAX_TABLE_CAPACITY = 0x01
    MAX_FIELD_SECTION_SIZE = 0x06
    QPACK_BLOCKED_STREAMS = 0x07
    ENABLE_CONNECT_PROTOCOL = 0x08
    H3_DATAGRAM = 0x33
    H3_DATAGRAM_DRAFT_04 = 0xFFD277
    WT_INITIAL_MAX_DATA = 0x2B61
    WT_INITIAL_MAX_STREAMS_UNI = 0x2B64
    WT_INITIAL_MAX_STREAMS_BIDI = 0x2B65
    ENABLE_WEBTRANSPORT = 0x2B603742
    """Draft-02 to draft-06, and still sent by browsers."""
    WEBTRANSPORT_MAX_SESSIONS_OLD = 0x2B603743
    """In the same drafts."""
    WEBTRANSPORT_MAX_SESSIONS = 0xC671706A
    """From draft-07."""
    WT_MAX_SESSIONS = 0x14E9CD29
    """Draft-13 and 14."""
    WT_ENABLED = 0x2C7CF000
    """Draft-15 and 16."""


HTTP2_SETTINGS = frozenset((0x00, 0x02, 0x03, 0x04, 0x05))
"""Reserved: receipt is an error (RFC 9114, section 7.2.4.1)."""

BOOLEAN_SETTINGS = (
    Setting.ENABLE_CONNECT_PROTOCOL,
    Setting.H3_DATAGRAM,
    Setting.WT_ENABLED,
)

_EXTENSIONS = frozenset(Setting) - {
    Setting.QPACK_MAX_TABLE_CAPACITY,
    Setting.MAX_FIELD_SECTION_SIZE,
    Setting.QPACK_BLOCKED_STREAMS,
}
_LIMITS = {
    Setting.WT_INITIAL_MAX_DATA,
    Setting.WT_INITIAL_MAX_STREAMS_UNI,
    Setting.WT_INITIAL_MAX_STREAMS_BIDI,
}
_BARE_CAPSULES = _LIMITS | {
    Setting.ENABLE_CONNECT_PROTOCOL,
    Setting.H3_DATAGRAM,
    Setting.WT_MAX_SESSIONS,
}
_FIRST_GENERATION = {Setting.H3_DATAGRAM_DRAFT_04, Setting.ENABLE_WEBTRANSPORT}


class Version(IntEnum):
    """Drafts that differ on the wire, in order."""

    DRAFT_02 = 2
    DRAFT_07 = 7
    DRAFT_14 = 14
    DRAFT_16 = 16

    def __str__(self) -> str:
        return f"draft-{self.value:02}"


ANNOUNCEMENTS = (
    (Setting.WT_ENABLED, Version.DRAFT_16),
    (Setting.WT_MAX_SESSIONS, Version.DRAFT_14),
    (Setting.WEBTRANSPORT_MAX_SESSIONS, Version.DRAFT_07),
    (Setting.ENABLE_WEBTRANSPORT, Version.DRAFT_02),
)
"""Which setting announces which draft, the newest first."""

TOKEN = b"webtransport"
"""The upgrade token up to draft-14."""
TOKEN_H3 = b"webtransport-h3"
"""The upgrade token from draft-15."""


@dataclass(frozen=True, slots=True)
class Credit:
    """The initial limits of session flow control that one side sent."""

    data: int = 0
    streams_bidi: int = 0
    streams_uni: int = 0

    @property
    def wanted(self) -> bool:
        """Whether the side enables flow control (section 5.1)."""
        return bool(self.data or self.streams_bidi or self.streams_uni)


@dataclass(frozen=True, slots=True)
class Draft:
    """The negotiated version and features; they never change during a connection."""

    version: Version
    flow_control: bool = False
    granted: Credit = Credit()
    """The peer's initial limits for each session."""
    bare_capsules: bool = False
    """Whether the peer sends capsules without DATA frames (see `has_bare_capsules`)."""
    lenient: bool = False
    """Whether requests may have no path, and fields any order (see `is_lenient`)."""

    @property
    def token(self) -> bytes:
        """The value of `:protocol` in a request."""
        return TOKEN_H3 if self.version >= Version.DRAFT_16 else TOKEN

    def __str__(self) -> str:
        return str(self.version)


class NoWebTransportError(Exception):
    """The peer supports HTTP/3 but not WebTransport; the text says what is missing."""


@functools.lru_cache(maxsize=16)  # shared by connections with the same limits
def offered_settings(limits: Limits, *, is_client: bool) -> Mapping[int, int]:
    """The settings to send. Peers of every draft accept them.

    There is no QPACK dynamic table: a session has only two field sections.
    """
    sessions = 1 if is_client else limits.max_sessions
    return MappingProxyType(
        {
            Setting.MAX_FIELD_SECTION_SIZE: limits.max_field_section,
            Setting.ENABLE_CONNECT_PROTOCOL: 1,
            Setting.H3_DATAGRAM: 1,
            Setting.H3_DATAGRAM_DRAFT_04: 1,
            Setting.ENABLE_WEBTRANSPORT: 1,
            Setting.WEBTRANSPORT_MAX_SESSIONS_OLD: sessions,
            Setting.WEBTRANSPORT_MAX_SESSIONS: sessions,
            Setting.WT_MAX_SESSIONS: sessions,
            Setting.WT_ENABLED: 1,
            Setting.WT_INITIAL_MAX_DATA: limits.initial_max_data,
            Setting.WT_INITIAL_MAX_STREAMS_UNI: limits.initial_max_streams_uni,
            Setting.WT_INITIAL_MAX_STREAMS_BIDI: limits.initial_max_streams_bidi,
        }
    )


def check_settings(settings: Mapping[int, int], *, max_datagram_size: int) -> None:
    """Reject settings that no draft allows.

    Raises `ConnectionProtocolError` with H3_SETTINGS_ERROR for a setting of HTTP/2 (RFC 9114,
    section 7.2.4.1), a boolean that is neither 0 nor 1 (RFC 9220, section 3; RFC 9297, section
    2.1.1; draft-16, section 3.1), and HTTP datagrams without QUIC datagrams.
    """
    for identifier in settings:
        if identifier in HTTP2_SETTINGS:
            raise ConnectionProtocolError(
                ErrorCode.H3_SETTINGS_ERROR, f"setting 0x{identifier:x} is HTTP/2's"
            )
    for setting in BOOLEAN_SETTINGS:
        if settings.get(setting, 0) > 1:
            raise ConnectionProtocolError(
                ErrorCode.H3_SETTINGS_ERROR, f"{setting.name} is neither 0 nor 1"
            )
    if settings.get(Setting.H3_DATAGRAM) and not max_datagram_size:
        raise ConnectionProtocolError(
            ErrorCode.H3_SETTINGS_ERROR, "H3_DATAGRAM without QUIC datagrams"
        )


def takes_datagrams(settings: Mapping[int, int]) -> bool:
    """Whether a side enables HTTP datagrams, by the RFC's setting or that of draft-04."""
    return bool(settings.get(Setting.H3_DATAGRAM) or settings.get(Setting.H3_DATAGRAM_DRAFT_04))


def is_lenient(settings: Mapping[int, int]) -> bool:
    """Whether these are the settings of wtransport 0.1.

    It sends the settings for datagrams of draft-04 and for WebTransport of draft-02, and none of
    the other extensions. Its requests have no path and no authority, and its fields any order. No
    other client sends such settings, so others are parsed strictly.
    """
    known = _EXTENSIONS.intersection(settings)
    return known == _FIRST_GENERATION and all(settings[setting] for setting in known)


def has_bare_capsules(settings: Mapping[int, int]) -> bool:
    """Whether these are the settings of pywebtransport 0.8, which sends capsules without DATA
    frames.

    It closes the connection at the first DATA frame on a CONNECT stream. It announces only
    draft-14, with all three limits as zero, by which it means no limits, and respects ours. No
    other peer does.
    """
    known = _EXTENSIONS.intersection(settings)
    return known == _BARE_CAPSULES and not any(settings[setting] for setting in _LIMITS)


def announced_version(settings: Mapping[int, int]) -> Version | None:
    """The newest draft that a side's settings announce, or None."""
    for setting, version in ANNOUNCEMENTS:
        if settings.get(setting):
            return version
    return None


def granted_credit(settings: Mapping[int, int]) -> Credit:
    """The session flow control limits that a side's settings grant."""
    return Credit(
        data=settings.get(Setting.WT_INITIAL_MAX_DATA, 0),
        streams_bidi=settings.get(Setting.WT_INITIAL_MAX_STREAMS_BIDI, 0),
        streams_uni=settings.get(Setting.WT_INITIAL_MAX_STREAMS_UNI, 0),
    )


def _agree(version: Version, local: Mapping[int, int], remote: Mapping[int, int]) -> Draft:
    granted = granted_credit(remote)
    bare = has_bare_capsules(remote)
    if bare:
        granted = Credit(data=(1 << 62) - 1, streams_bidi=1 << 60, streams_uni=1 << 60)
    # In draft-14, WT_MAX_SESSIONS above 1 enables flow control too. This is ignored: a peer that
    # sends it without limits (pywebtransport 0.8) never grants credit.
    return Draft(
        version=version,
        flow_control=granted.wanted and granted_credit(local).wanted,
        granted=granted,
        bare_capsules=bare,
        lenient=is_lenient(remote),
    )


def client_draft(
    local: Mapping[int, int], remote: Mapping[int, int], *, max_datagram_size: int
) -> Draft:
    """The draft that a client uses with a server that sent the settings `remote`.

    Raises `NoWebTransportError` if the server does not meet the requirements of draft-16, section
    3.1. RESET_STREAM_AT is not required: a plain reset is sent to a peer without it.
    """
    version = announced_version(remote)
    if version is None:
        raise NoWebTransportError("its HTTP/3 settings do not offer WebTransport")
    if not takes_datagrams(remote) or not max_datagram_size:
        raise NoWebTransportError("it offers WebTransport but accepts no datagrams")
    if version >= Version.DRAFT_07 and not remote.get(Setting.ENABLE_CONNECT_PROTOCOL):
        raise NoWebTransportError("it offers WebTransport but no extended CONNECT")
    return _agree(version, local, remote)


def server_draft(
    local: Mapping[int, int],
    remote: Mapping[int, int],
    token: bytes,
    *,
    max_datagram_size: int,
) -> Draft:
    """The draft that a server uses with a client that sent the settings `remote` and `token`.

    A client need not announce WebTransport: from draft-15 the token is enough, and some older
    clients announce nothing. Raises `StreamProtocolError` with H3_MESSAGE_ERROR if the client
    accepts no datagrams, which makes the request malformed (section 3.1).
    """
    if not takes_datagrams(remote) or not max_datagram_size:
        raise StreamProtocolError(ErrorCode.H3_MESSAGE_ERROR, "the client accepts no datagrams")
    version = announced_version(remote)
    if version is None:
        version = Version.DRAFT_16 if token == TOKEN_H3 else Version.DRAFT_07
    return _agree(version, local, remote)
