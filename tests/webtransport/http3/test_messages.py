from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.drafts import Draft, Version
from pingpong.webtransport.errors import ErrorCode, StreamProtocolError
from pingpong.webtransport.events import Request
from pingpong.webtransport.http3.messages import (
    RequestHead,
    ResponseHead,
    parse_request,
    parse_response,
    request_headers,
    response_headers,
)

Fields = list[tuple[bytes, bytes]]
CONNECT = {
    b":method": b"CONNECT",
    b":protocol": b"webtransport-h3",
    b":scheme": b"https",
    b":authority": b"localhost:4433",
    b":path": b"/ping?a=b",
}
GET = {
    b":method": b"GET",
    b":scheme": b"https",
    b":authority": b"localhost",
    b":path": b"/",
}
TUNNEL = {b":method": b"CONNECT", b":authority": b"localhost:443"}
OK: Fields = [(b":status", b"200")]


def request(
    base: Mapping[bytes, bytes] = CONNECT,
    *fields: tuple[bytes, bytes],
    without: bytes = b"",
    **pseudo: bytes,
) -> RequestHead:
    """Parse a request: `base`, changed in its pseudo-fields, with fields behind."""
    changed = {**base, **{b":" + name.encode(): value for name, value in pseudo.items()}}
    changed.pop(without, None)
    return parse_request([*changed.items(), *fields], lenient=False)


def malformed_request(
    base: Mapping[bytes, bytes] = CONNECT,
    *fields: tuple[bytes, bytes],
    without: bytes = b"",
    **pseudo: bytes,
) -> str:
    """Why a request is malformed."""
    with pytest.raises(StreamProtocolError) as raised:
        request(base, *fields, without=without, **pseudo)
    assert raised.value.code == ErrorCode.H3_MESSAGE_ERROR
    return raised.value.reason


def malformed_response(headers: Fields, *, lenient: bool = False) -> str:
    with pytest.raises(StreamProtocolError) as raised:
        parse_response(headers, lenient=lenient)
    assert raised.value.code == ErrorCode.H3_MESSAGE_ERROR
    return raised.value.reason


class TestRequest:
    def test_for_a_session(self) -> None:
        head = request(
            CONNECT,
            (b"origin", b"https://example.com"),
            (b"wt-available-protocols", b'"pingpong.v1", "other"'),
            (b"x-own", b"1"),
            (b"x-own", b"2"),
        )
        assert head.is_webtransport
        assert (head.method, head.token) == (b"CONNECT", b"webtransport-h3")
        asked = head.request
        assert (asked.authority, asked.path) == ("localhost:4433", "/ping?a=b")
        assert asked.origin == "https://example.com"
        assert asked.protocols == ("pingpong.v1", "other")
        assert asked.header(b"x-own") == b"1"
        assert asked.header(b"x-other") is None
        assert len(asked.headers) == 4

    def test_without_anything_optional(self) -> None:
        asked = request().request
        assert (asked.origin, asked.protocols, asked.headers) == (None, (), ())

    @pytest.mark.parametrize("token", [b"webtransport", b"webtransport-h3"])
    def test_both_tokens(self, token: bytes) -> None:
        assert request(protocol=token).is_webtransport

    @pytest.mark.parametrize("token", [b"websocket", b"connect-udp", b"WebTransport", b""])
    def test_other_tokens_are_not_for_us(self, token: bytes) -> None:
        assert not request(protocol=token).is_webtransport

    @pytest.mark.parametrize("base", [GET, TUNNEL])
    def test_other_requests_are_well_formed_too(self, base: Mapping[bytes, bytes]) -> None:
        head = request(base)
        assert not head.is_webtransport
        assert head.token is None

    def test_options_may_be_about_the_server(self) -> None:
        assert request(GET, method=b"OPTIONS", path=b"*").request.path == "*"

    @pytest.mark.parametrize("base", [CONNECT, GET])
    def test_the_order_of_pseudo_fields_is_free(self, base: Mapping[bytes, bytes]) -> None:
        for seed in range(10):
            pseudo = list(base.items())
            random.Random(seed).shuffle(pseudo)
            assert parse_request(pseudo, lenient=False) == request(base)

    @pytest.mark.parametrize(
        "offered", [b"pingpong.v1", b'"a", token', b'"a"; =', b"", b'"a",', b"1"]
    )
    def test_a_malformed_list_of_protocols_is_ignored(self, offered: bytes) -> None:
        head = request(CONNECT, (b"wt-available-protocols", offered))
        assert head.is_webtransport
        assert head.request.protocols == ()

    def test_a_list_may_come_in_several_lines(self) -> None:
        name = b"wt-available-protocols"
        head = request(CONNECT, (name, b'"a"'), (b"x", b"y"), (name, b'"b", "c"'))
        assert head.request.protocols == ("a", "b", "c")


class TestMalformedRequest:
    @pytest.mark.parametrize("name", [b":method", b":scheme", b":authority", b":path"])
    def test_a_pseudo_field_is_missing(self, name: bytes) -> None:
        assert name.decode().lstrip(":") in malformed_request(without=name)

    def test_without_a_protocol_it_is_a_plain_connect_with_too_much_in_it(self) -> None:
        assert "plain CONNECT" in malformed_request(without=b":protocol")

    @pytest.mark.parametrize("name", [b":method", b":scheme", b":authority", b":path"])
    def test_of_another_request(self, name: bytes) -> None:
        malformed_request(GET, without=name)

    @pytest.mark.parametrize("name", [b":method", b":authority", b":path"])
    def test_a_pseudo_field_is_empty(self, name: bytes) -> None:
        malformed_request({**CONNECT, name: b""})
        malformed_request({**GET, name: b""})

    @pytest.mark.parametrize("name", CONNECT)
    @pytest.mark.parametrize("lenient", [False, True])
    def test_a_pseudo_field_is_repeated(self, name: bytes, lenient: bool) -> None:
        headers = [*CONNECT.items(), (name, CONNECT[name])]
        with pytest.raises(StreamProtocolError, match="repeated"):
            parse_request(headers, lenient=lenient)

    @pytest.mark.parametrize("name", [b":status", b":unknown", b":", b":Path", b":path "])
    @pytest.mark.parametrize("lenient", [False, True])
    def test_a_pseudo_field_is_unknown(self, name: bytes, lenient: bool) -> None:
        with pytest.raises(StreamProtocolError, match="unknown"):
            parse_request([*CONNECT.items(), (name, b"200")], lenient=lenient)

    @pytest.mark.parametrize("name", CONNECT)
    def test_a_pseudo_field_follows_a_field(self, name: bytes) -> None:
        headers = [(key, value) for key, value in CONNECT.items() if key != name]
        headers += [(b"x", b"y"), (name, CONNECT[name])]
        with pytest.raises(StreamProtocolError, match="follows"):
            parse_request(headers, lenient=False)

    @pytest.mark.parametrize("scheme", [b"http", b"", b"HTTPS", b"wss"])
    def test_a_session_is_for_https(self, scheme: bytes) -> None:
        assert "https" in malformed_request(scheme=scheme)

    @pytest.mark.parametrize("path", [b"ping", b"*", b"?a", b"https://localhost/"])
    def test_a_path_is_absolute(self, path: bytes) -> None:
        assert ":path" in malformed_request(path=path)
        assert ":path" in malformed_request(GET, path=path)

    def test_a_protocol_needs_connect(self) -> None:
        assert ":protocol" in malformed_request(method=b"GET")

    @pytest.mark.parametrize("name", [b":scheme", b":path"])
    def test_a_plain_connect_has_only_an_authority(self, name: bytes) -> None:
        malformed_request({**TUNNEL, name: CONNECT[name]})
        malformed_request({b":method": b"CONNECT"})

    @pytest.mark.parametrize("base", [CONNECT, GET])
    def test_an_authority_has_no_user(self, base: Mapping[bytes, bytes]) -> None:
        assert "user" in malformed_request(base, authority=b"me:secret@localhost")

    def test_host_and_authority_agree(self) -> None:
        assert request(CONNECT, (b"host", b"LOCALHOST:4433")).is_webtransport
        assert "host" in malformed_request(CONNECT, (b"host", b"elsewhere"))
        assert "host" in malformed_request(GET, (b"host", b"elsewhere"))

    def test_host_may_take_the_authoritys_place_but_not_for_a_session(self) -> None:
        host = (b"host", b"localhost")
        assert request(GET, host, without=b":authority").method == b"GET"
        assert "authority" in malformed_request(CONNECT, host, without=b":authority")

    @pytest.mark.parametrize(
        "name",
        [
            b"",
            b"Origin",
            b"x-Upper",
            b"x y",
            b"x:y",
            b"x\0",
            b"x\r\n",
            b"x\x7f",
            b"\xe9",
            b"x/y",
            b'"x"',
            b"connection",
            b"keep-alive",
            b"proxy-connection",
            b"transfer-encoding",
            b"upgrade",
        ],
    )
    def test_names_of_fields(self, name: bytes) -> None:
        assert "not allowed" in malformed_request(CONNECT, (name, b"value"))

    def test_names_with_every_character_allowed(self) -> None:
        assert request(CONNECT, (b"!#$%&'*+-.^_`|~09az", b"")).is_webtransport

    @pytest.mark.parametrize("byte", [*range(0x09), *range(0x0A, 0x20), 0x7F])
    def test_values_of_fields(self, byte: int) -> None:
        for value in (bytes((byte,)), b"a" + bytes((byte,)) + b"b", b"a" + bytes((byte,))):
            assert "forbidden" in malformed_request(CONNECT, (b"x", value))
        assert "forbidden" in malformed_request(path=b"/" + bytes((byte,)))

    @pytest.mark.parametrize("value", [b" a", b"a ", b"\ta", b"a\t", b" ", b"\t"])
    def test_values_are_trimmed(self, value: bytes) -> None:
        assert "forbidden" in malformed_request(CONNECT, (b"x", value))

    @pytest.mark.parametrize("value", [b"", b"a b", b"a\tb", b"\x80\xff", b"!~"])
    def test_other_values(self, value: bytes) -> None:
        assert request(CONNECT, (b"x", value)).request.header(b"x") == value

    @pytest.mark.parametrize("value", [b"gzip", b"trailers, deflate", b""])
    def test_te_is_for_trailers(self, value: bytes) -> None:
        assert request(CONNECT, (b"te", b"trailers")).is_webtransport
        assert "te" in malformed_request(CONNECT, (b"te", value))


FIRST_GENERATION: Fields = [
    (b":method", b"CONNECT"),
    (b":scheme", b"https"),
    (b":protocol", b"webtransport"),
    (b"sec-webtransport-http3-draft02", b"1"),
]
"""wtransport 0.1 sends no path, no authority, and any order."""


class TestLenient:
    @pytest.mark.parametrize("seed", range(10))
    def test_a_request(self, seed: int) -> None:
        headers = list(FIRST_GENERATION)
        random.Random(seed).shuffle(headers)
        head = parse_request(headers, lenient=True)
        assert head.is_webtransport
        assert (head.request.authority, head.request.path) == ("", "/")
        with pytest.raises(StreamProtocolError):
            parse_request(headers, lenient=False)

    def test_a_path_and_an_authority_count_where_they_are(self) -> None:
        head = parse_request([*CONNECT.items()], lenient=True)
        assert (head.request.authority, head.request.path) == ("localhost:4433", "/ping?a=b")

    def test_a_response(self) -> None:
        headers = [(b"sec-webtransport-http3-draft", b"draft02"), (b":status", b"200")]
        assert parse_response(headers, lenient=True).status == 200
        assert "follows" in malformed_response(headers)

    @pytest.mark.parametrize(
        "field", [(b"Upper", b"x"), (b"connection", b"close"), (b"x", b"a\r\nb"), (b":x", b"")]
    )
    def test_nothing_else_is_let_pass(self, field: tuple[bytes, bytes]) -> None:
        with pytest.raises(StreamProtocolError):
            parse_request([*FIRST_GENERATION, field], lenient=True)
        malformed_response([*OK, field], lenient=True)

    @pytest.mark.parametrize("method", [None, b"", b"GET"])
    def test_not_even_the_method(self, method: bytes | None) -> None:
        headers = [] if method is None else [(b":method", method)]
        with pytest.raises(StreamProtocolError):
            parse_request([*headers, *FIRST_GENERATION[1:]], lenient=True)


class TestResponse:
    @pytest.mark.parametrize("status", [100, 200, 204, 302, 404, 429, 599, 999])
    def test_statuses(self, status: int) -> None:
        headers = [(b":status", str(status).encode()), (b"server", b"x")]
        expected = ResponseHead(status, None, ((b"server", b"x"),))
        assert parse_response(headers, lenient=False) == expected

    @pytest.mark.parametrize(
        "status",
        [b"", b"20", b"2000", b"099", b"2xx", b"+20", b"2 0", "\uff12\uff10\uff10".encode()],
    )
    def test_malformed_statuses(self, status: bytes) -> None:
        malformed_response([(b":status", status)])

    def test_malformed(self) -> None:
        malformed_response([])
        malformed_response([(b"x", b"y")])
        malformed_response([*OK, *OK])
        malformed_response([*OK, (b":path", b"/")])
        malformed_response([(b"x", b"y"), *OK])
        malformed_response([*OK, (b"Server", b"x")])
        malformed_response([*OK, (b"upgrade", b"x")])
        malformed_response([*OK, (b"x", b"a\nb")])

    @pytest.mark.parametrize(
        ("value", "protocol"),
        [
            (b'"pingpong.v1"', "pingpong.v1"),
            (b'"pingpong.v1";q=1', "pingpong.v1"),
            (b"pingpong.v1", None),
            (b'"a", "b"', None),
            (b"", None),
        ],
    )
    def test_the_protocol(self, value: bytes, protocol: str | None) -> None:
        headers = [*OK, (b"wt-protocol", value)]
        assert parse_response(headers, lenient=False).protocol == protocol

    def test_two_protocols_are_none(self) -> None:
        field = (b"wt-protocol", b'"a"')
        assert parse_response([*OK, field, field], lenient=False).protocol is None


class TestSending:
    @pytest.mark.parametrize(
        ("version", "token", "draft_02"),
        [
            (Version.DRAFT_02, b"webtransport", True),
            (Version.DRAFT_07, b"webtransport", False),
            (Version.DRAFT_14, b"webtransport", False),
            (Version.DRAFT_16, b"webtransport-h3", False),
        ],
    )
    def test_a_request_by_draft(self, version: Version, token: bytes, draft_02: bool) -> None:
        headers = request_headers(Request("localhost:4433", "/"), Draft(version))
        assert headers[:5] == [
            (b":method", b"CONNECT"),
            (b":protocol", token),
            (b":scheme", b"https"),
            (b":authority", b"localhost:4433"),
            (b":path", b"/"),
        ]
        assert headers[5:] == [(b"sec-webtransport-http3-draft02", b"1")] * draft_02

    def test_a_response_by_draft(self) -> None:
        assert response_headers(200, version=Version.DRAFT_02) == [
            (b":status", b"200"),
            (b"sec-webtransport-http3-draft", b"draft02"),
        ]
        for version in (Version.DRAFT_07, Version.DRAFT_14, Version.DRAFT_16):
            assert response_headers(200, version=version) == OK
        assert response_headers(404) == [(b":status", b"404")]

    @given(
        st.builds(
            Request,
            authority=st.from_regex(r"[a-z0-9.]{1,10}(:[0-9]{1,5})?", fullmatch=True),
            path=st.from_regex(r"/[!-~]{0,20}", fullmatch=True),
            origin=st.none() | st.from_regex(r"https://[a-z]{1,10}", fullmatch=True),
            protocols=st.lists(
                st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10),
                max_size=3,
            ).map(tuple),
        ),
        st.sampled_from(Version),
        st.booleans(),
    )
    def test_a_request_goes_round(self, asked: Request, version: Version, lenient: bool) -> None:
        head = parse_request(request_headers(asked, Draft(version)), lenient=lenient)
        assert head.is_webtransport
        got = head.request
        assert (got.authority, got.path, got.origin, got.protocols) == (
            asked.authority,
            asked.path,
            asked.origin,
            asked.protocols,
        )

    @given(
        st.integers(100, 999),
        st.sampled_from(Version),
        st.none() | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10),
    )
    def test_a_response_goes_round(
        self, status: int, version: Version, protocol: str | None
    ) -> None:
        headers = response_headers(status, version=version, protocol=protocol)
        head = parse_response(headers, lenient=False)
        assert (head.status, head.protocol) == (status, protocol)

    def test_own_fields_follow(self) -> None:
        asked = Request("localhost", "/", headers=((b"x", b"y"), (b"x", b"z")))
        headers = request_headers(asked, Draft(Version.DRAFT_16))
        assert headers[5:] == [(b"x", b"y"), (b"x", b"z")]

    def test_a_protocol_that_no_field_can_hold(self) -> None:
        with pytest.raises(ValueError, match="printable ASCII"):
            response_headers(200, protocol="é")
        with pytest.raises(ValueError, match="printable ASCII"):
            request_headers(Request("localhost", "/", protocols=("é",)), Draft(Version.DRAFT_16))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*CONNECT, b":status", b"x", b"origin", b"host", b"te", b"X", b""])
            | st.binary(max_size=6),
            st.sampled_from([*CONNECT.values(), b"200", b"", b" "]) | st.binary(max_size=6),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_anything_is_parsed_or_malformed(headers: Fields, lenient: bool) -> None:
    codes = set()
    for parse in (parse_request, parse_response):
        try:
            parse(headers, lenient=lenient)
        except StreamProtocolError as error:
            codes.add(error.code)
    assert codes <= {ErrorCode.H3_MESSAGE_ERROR}
