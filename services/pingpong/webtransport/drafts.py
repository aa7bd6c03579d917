"""Which draft two endpoints speak: settings and headers of both sides -> one `Draft`.

Every draft so far has its own setting, so that an endpoint can offer them all at once
(draft-16, section 7.1). What the drafts in use share is much: the stream headers, the
datagrams, the capsules. They differ in the upgrade token, in who must announce what,
and in whether session flow control is there. Code above asks the `Draft`, not the
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
    """HTTP/3 settings that are read or sent here."""

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
    """Draft-02 to draft-06, and what browsers still ask for."""
    WEBTRANSPORT_MAX_SESSIONS_OLD = 0x2B603743
    """Beside the one before, in the same drafts."""
    WEBTRANSPORT_MAX_SESSIONS = 0xC671706A
    """Draft-07 and on."""
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
    """Drafts that differ on the wire; a later one is greater."""

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
    """Session flow control's initial limits, as one side announced them."""

    data: int = 0
    streams_bidi: int = 0
    streams_uni: int = 0

    @property
    def wanted(self) -> bool:
        """Whether the side declared its intent to use flow control (section 5.1)."""
        return bool(self.data or self.streams_bidi or self.streams_uni)


@dataclass(frozen=True, slots=True)
class Draft:
    """What two sides have agreed on; never changes during a connection."""

    version: Version
    flow_control: bool = False
    granted: Credit = Credit()
    """What the peer grants us at the start of each session."""
    bare_capsules: bool = False
    """The peer has no DATA frames around its capsules (see `has_bare_capsules`)."""
    lenient: bool = False
    """The peer is of the first generation: no path, fields in any order (see `is_lenient`)."""

    @property
    def token(self) -> bytes:
        """What `:protocol` a client sends."""
        return TOKEN_H3 if self.version >= Version.DRAFT_16 else TOKEN

    def __str__(self) -> str:
        return str(self.version)


class NoWebTransportError(Exception):
    """The peer speaks HTTP/3 but not WebTransport; the text says what is missing."""


@functools.lru_cache(maxsize=16)  # one for all connections of the same limits
def offered_settings(limits: Limits, *, is_client: bool) -> Mapping[int, int]:
    """The settings to send, such that peers of every draft accept them.

    QPACK's dynamic table is left at its default of zero: a session has two field
    sections in its life, too few for a table to earn its memory.
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
    """Refuse settings that no draft allows.

    Raises `ConnectionProtocolError` with H3_SETTINGS_ERROR: a setting of HTTP/2 (RFC
    9114, section 7.2.4.1), a switch that is neither 0 nor 1 (RFC 9220, section 3; RFC
    9297, section 2.1.1; draft-16, section 3.1), HTTP datagrams without QUIC's.
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
    """Whether a side has turned HTTP datagrams on, by the RFC's setting or the older one."""
    return bool(settings.get(Setting.H3_DATAGRAM) or settings.get(Setting.H3_DATAGRAM_DRAFT_04))


def is_lenient(settings: Mapping[int, int]) -> bool:
    """Whether these are the settings of a first-generation peer.

    wtransport 0.1 sends the old datagram setting and draft-02's and, QPACK's aside,
    nothing else that is known here; its requests have no path and no authority, and its
    fields no order. No other client sends such settings, so that the others get no leniency.
    """
    known = _EXTENSIONS.intersection(settings)
    return known == _FIRST_GENERATION and all(settings[setting] for setting in known)


def has_bare_capsules(settings: Mapping[int, int]) -> bool:
    """Whether these are the settings of a peer that writes capsules without DATA frames.

    pywebtransport 0.8 ends the connection at the first DATA frame on a CONNECT stream. It
    announces draft-14 alone, and all three limits as zero; means no limits by that, and
    obeys ours all the same. No other peer does.
    """
    known = _EXTENSIONS.intersection(settings)
    return known == _BARE_CAPSULES and not any(settings[setting] for setting in _LIMITS)


def announced_version(settings: Mapping[int, int]) -> Version | None:
    """The newest draft that a side's settings announce, None where they announce none."""
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
    # Draft-14 took WT_MAX_SESSIONS above 1, too, for the intent to use flow control. It is not
    # counted: who sends it without limits (pywebtransport 0.8) grants nothing later either.
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
    """What a client speaks with a server that sent the settings `remote`.

    Raises `NoWebTransportError` where the server does not meet the requirements of
    draft-16, section 3.1; reset_stream_at is not insisted on, since a plain reset
    serves a peer that cannot do better.
    """
    version = announced_version(remote)
    if version is None:
        raise NoWebTransportError("its HTTP/3 settings do not offer WebTransport")
    if not takes_datagrams(remote) or not max_datagram_size:
        raise NoWebTransportError("it offers WebTransport but takes no datagrams")
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
    """What a server speaks with a client that sent the settings `remote` and asks for `token`.

    A client need not announce WebTransport where its request says what it is: from
    draft-15 the token alone is enough, and older ones that announce nothing are out
    there. Raises `StreamProtocolError` with H3_MESSAGE_ERROR where it takes no datagrams, by
    section 3.1 a malformed request.
    """
    if not takes_datagrams(remote) or not max_datagram_size:
        raise StreamProtocolError(ErrorCode.H3_MESSAGE_ERROR, "the client takes no datagrams")
    version = announced_version(remote)
    if version is None:
        version = Version.DRAFT_16 if token == TOKEN_H3 else Version.DRAFT_07
    return _agree(version, local, remote)
