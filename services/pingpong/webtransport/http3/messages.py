"""The CONNECT request and its response: pseudo-fields in and out (RFC 9220; draft-16, section 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..drafts import TOKEN, TOKEN_H3, Draft, Version
from ..errors import ErrorCode, StreamProtocolError
from ..events import Headers, Request
from .fields import parse_string, parse_strings, serialize_string, serialize_strings

AVAILABLE_PROTOCOLS = b"wt-available-protocols"
PROTOCOL = b"wt-protocol"
DRAFT_02_REQUEST = b"sec-webtransport-http3-draft02"
DRAFT_02_RESPONSE = b"sec-webtransport-http3-draft"

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")
_CONNECTION_FIELDS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_RESPONSE_PSEUDO = frozenset((b":status",))


def _malformed(reason: str) -> StreamProtocolError:
    return StreamProtocolError(ErrorCode.H3_MESSAGE_ERROR, reason)


def _split(
    headers: Headers, allowed: frozenset[bytes], *, any_order: bool
) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Separate pseudo-fields from fields. Raises for violations of RFC 9114, 4.2 and 4.3."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if _BAD_VALUE.search(value):
            raise _malformed("a field's value has a forbidden character")
        if name[:1] == b":":
            if name not in allowed or name in pseudo:
                raise _malformed(f"pseudo-field {name.decode('latin-1')!r} is unknown or repeated")
            if fields and not any_order:
                raise _malformed("a pseudo-field follows a field")
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or name in _CONNECTION_FIELDS:
            raise _malformed(f"field {name.decode('latin-1')!r} is not allowed")
        elif name == b"te" and value.lower() != b"trailers":
            raise _malformed("field 'te' is only for trailers")
        else:
            fields.append((name, value))
    return pseudo, fields


def _combined(fields: Headers, name: bytes) -> bytes | None:
    """The lines of a field, joined to one value (RFC 9110, section 5.3)."""
    values = [value for key, value in fields if key == name]
    return b", ".join(values) if values else None


def _check_target(pseudo: dict[bytes, bytes], host: bytes | None) -> None:
    """Raise for a target that RFC 9114, 4.3.1 and 4.4, or RFC 9220 forbid."""
    authority, path = pseudo.get(b":authority", b""), pseudo.get(b":path", b"")
    is_connect = pseudo[b":method"] == b"CONNECT"
    if host is not None and host.lower() != (authority or host).lower():
        raise _malformed("host and :authority differ")
    if b"@" in authority:
        raise _malformed("userinfo in :authority")
    if is_connect and b":protocol" not in pseudo:
        if not authority or b":path" in pseudo or b":scheme" in pseudo:
            raise _malformed("a plain CONNECT has an authority and nothing else")
        return
    if b":scheme" not in pseudo:
        raise _malformed("a request without :scheme")
    if not path.startswith(b"/") and (pseudo[b":method"], path) != (b"OPTIONS", b"*"):
        raise _malformed("a request without :path")
    if is_connect and (not authority or pseudo[b":scheme"] != b"https"):
        raise _malformed("a session needs :scheme https and an :authority")
    if not authority and not host:
        raise _malformed("a request without :authority")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A parsed request of any kind; `token` is `:protocol`."""

    method: bytes
    token: bytes | None
    request: Request

    @property
    def is_webtransport(self) -> bool:
        """Whether it requests a session, in any draft."""
        return self.method == b"CONNECT" and self.token in (TOKEN, TOKEN_H3)

    @property
    def refusal(self) -> tuple[int, Headers]:
        """The status and fields that reject any other request (RFC 9220, section 3; RFC 9110)."""
        return (501, ()) if self.method == b"CONNECT" else (405, ((b"allow", b"CONNECT"),))


def parse_request(headers: Headers, *, lenient: bool) -> RequestHead:
    """Parse the fields of a request.

    Raises `StreamProtocolError` with H3_MESSAGE_ERROR if it is malformed. With `lenient`
    (`drafts.is_lenient`) path and authority may be missing, and fields may have any order.
    """
    pseudo, fields = _split(headers, _REQUEST_PSEUDO, any_order=lenient)
    method = pseudo.get(b":method", b"")
    token = pseudo.get(b":protocol")
    if not method:
        raise _malformed("a request without :method")
    if token is not None and method != b"CONNECT":
        raise _malformed(":protocol without CONNECT")
    if not lenient:
        _check_target(pseudo, _combined(fields, b"host"))
    authority = pseudo.get(b":authority", b"")
    path = pseudo.get(b":path", b"/" if lenient else b"")
    offered = _combined(fields, AVAILABLE_PROTOCOLS)
    origin = _combined(fields, b"origin")
    request = Request(
        authority=authority.decode("latin-1"),
        path=path.decode("latin-1"),
        origin=None if origin is None else origin.decode("latin-1"),
        protocols=() if offered is None else parse_strings(offered),
        headers=tuple(fields),
    )
    return RequestHead(method, token, request)


def request_headers(request: Request, draft: Draft) -> list[tuple[bytes, bytes]]:
    """The field section of a CONNECT for a session."""
    headers = [
        (b":method", b"CONNECT"),
        (b":protocol", draft.token),
        (b":scheme", b"https"),
        (b":authority", request.authority.encode("latin-1")),
        (b":path", request.path.encode("latin-1")),
    ]
    if draft.version is Version.DRAFT_02:
        headers.append((DRAFT_02_REQUEST, b"1"))
    if request.origin is not None:
        headers.append((b"origin", request.origin.encode("latin-1")))
    if request.protocols:
        headers.append((AVAILABLE_PROTOCOLS, serialize_strings(request.protocols)))
    headers.extend(request.headers)
    return headers


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A parsed response. `protocol` is None if it has no valid WT-Protocol."""

    status: int
    protocol: str | None
    fields: Headers


def parse_response(headers: Headers, *, lenient: bool) -> ResponseHead:
    """Parse a response. Raises `StreamProtocolError` with H3_MESSAGE_ERROR if malformed."""
    pseudo, fields = _split(headers, _RESPONSE_PSEUDO, any_order=lenient)
    status = pseudo.get(b":status", b"")
    if not re.fullmatch(rb"[1-9][0-9]{2}", status):
        raise _malformed("a response without a status of three digits")
    named = _combined(fields, PROTOCOL)
    return ResponseHead(
        status=int(status),
        protocol=None if named is None else parse_string(named),
        fields=tuple(fields),
    )


def response_headers(
    status: int, *, version: Version | None = None, protocol: str | None = None
) -> list[tuple[bytes, bytes]]:
    """The field section of a response; `version` and `protocol` are for status 200."""
    headers = [(b":status", str(status).encode())]
    if version is Version.DRAFT_02:
        headers.append((DRAFT_02_RESPONSE, b"draft02"))
    if protocol is not None:
        headers.append((PROTOCOL, serialize_string(protocol)))
    return headers
