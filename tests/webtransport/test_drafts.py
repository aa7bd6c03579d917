from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.drafts import (
    TOKEN,
    TOKEN_H3,
    Credit,
    Draft,
    NoWebTransportError,
    Setting,
    Version,
    check_settings,
    client_draft,
    is_lenient,
    offered_settings,
    server_draft,
)
from pingpong.webtransport.errors import (
    ConnectionProtocolError,
    ErrorCode,
    StreamProtocolError,
)
from pingpong.webtransport.limits import Limits

LIMITS = Limits()
CLIENT = dict(offered_settings(LIMITS, is_client=True))
SERVER = dict(offered_settings(LIMITS, is_client=False))
NO_FLOW_CONTROL = Limits(initial_max_data=0, initial_max_streams_bidi=0, initial_max_streams_uni=0)
SIZE = 1200

DATAGRAM = {0x33: 1}
OLD_DATAGRAM = {0xFFD277: 1}
CONNECT = {0x08: 1}
LIMITED = {0x2B61: 65_536, 0x2B64: 10, 0x2B65: 20}
GRANTED = Credit(data=65_536, streams_bidi=20, streams_uni=10)
QPACK = {0x01: 4096, 0x07: 16}
GREASE = {0x21: 0, 0x1F * 1000 + 0x21: 12345, (1 << 62) - 1: 9}

FIRST_GENERATION = {0x01: 0, 0x07: 0, 0xFFD277: 1, 0x2B603742: 1}
"""wtransport 0.1.1, as client and as server."""

# Servers, by what they announce: what a client speaks with them.
SERVERS = {
    "draft-02": (DATAGRAM | CONNECT | {0x2B603742: 1}, Draft(Version.DRAFT_02), TOKEN),
    "draft-02 with its cap on sessions": (
        DATAGRAM | CONNECT | {0x2B603742: 1, 0x2B603743: 4},
        Draft(Version.DRAFT_02),
        TOKEN,
    ),
    "draft-07": (DATAGRAM | CONNECT | {0xC671706A: 1}, Draft(Version.DRAFT_07), TOKEN),
    "draft-14": (DATAGRAM | CONNECT | {0x14E9CD29: 1}, Draft(Version.DRAFT_14), TOKEN),
    "draft-14 with flow control": (
        DATAGRAM | CONNECT | {0x14E9CD29: 16} | LIMITED,
        Draft(Version.DRAFT_14, True, GRANTED),
        TOKEN,
    ),
    "draft-16": (DATAGRAM | CONNECT | {0x2C7CF000: 1}, Draft(Version.DRAFT_16), TOKEN_H3),
    "draft-16 with flow control": (
        DATAGRAM | CONNECT | {0x2C7CF000: 1} | LIMITED,
        Draft(Version.DRAFT_16, True, GRANTED),
        TOKEN_H3,
    ),
    "webtransport-go 0.13": (
        DATAGRAM
        | CONNECT
        | {0x2B603742: 1, 0x2C7CF000: 1, 0x14E9CD29: (1 << 62) - 1}
        | dict.fromkeys((0x2B61, 0x2B64, 0x2B65), 1 << 60),
        Draft(Version.DRAFT_16, True, Credit(1 << 60, 1 << 60, 1 << 60)),
        TOKEN_H3,
    ),
    "webtransport-go 0.10": (
        DATAGRAM | CONNECT | {0x2B603742: 1},
        Draft(Version.DRAFT_02),
        TOKEN,
    ),
    "wtransport 0.7": (
        {0x01: 0, 0x07: 0} | DATAGRAM | CONNECT | {0x2B603742: 1, 0xC671706A: 1},
        Draft(Version.DRAFT_07),
        TOKEN,
    ),
    "wtransport 0.1.1": (FIRST_GENERATION, Draft(Version.DRAFT_02, lenient=True), TOKEN),
    "pywebtransport 0.8": (
        QPACK | DATAGRAM | CONNECT | {0x14E9CD29: 10_000, 0x2B61: 0, 0x2B64: 0, 0x2B65: 0},
        Draft(Version.DRAFT_14, True, Credit((1 << 62) - 1, 1 << 60, 1 << 60), bare_capsules=True),
        TOKEN,
    ),
    "pywebtransport 0.21": (
        QPACK | DATAGRAM | CONNECT | {0x2C7CF000: 1} | LIMITED,
        Draft(Version.DRAFT_16, True, GRANTED),
        TOKEN_H3,
    ),
    "aioquic": (
        QPACK | DATAGRAM | CONNECT | {0x21: 1, 0x2B603742: 1},
        Draft(Version.DRAFT_02),
        TOKEN,
    ),
    "ourselves": (
        SERVER,
        Draft(Version.DRAFT_16, True, Credit(data=1 << 20, streams_bidi=128, streams_uni=128)),
        TOKEN_H3,
    ),
}

# Clients, by what they announce and ask for: what a server speaks with them.
CLIENTS = {
    "draft-02": (DATAGRAM | {0x2B603742: 1}, TOKEN, Draft(Version.DRAFT_02)),
    "draft-07": (DATAGRAM | {0xC671706A: 1}, TOKEN, Draft(Version.DRAFT_07)),
    "draft-14": (DATAGRAM | {0x14E9CD29: 1}, TOKEN, Draft(Version.DRAFT_14)),
    "draft-15": (DATAGRAM | {0x2C7CF000: 1}, TOKEN_H3, Draft(Version.DRAFT_16)),
    "draft-16 that announces nothing": (DATAGRAM, TOKEN_H3, Draft(Version.DRAFT_16)),
    "draft-16 with flow control": (
        DATAGRAM | {0x2C7CF000: 1} | LIMITED,
        TOKEN_H3,
        Draft(Version.DRAFT_16, True, GRANTED),
    ),
    "draft-16 with the older token": (DATAGRAM | {0x2C7CF000: 1}, TOKEN, Draft(Version.DRAFT_16)),
    "Chromium": (
        QPACK | DATAGRAM | {0x06: 262_144, 0x2B603742: 1} | GREASE,
        TOKEN,
        Draft(Version.DRAFT_02),
    ),
    "Safari": (
        QPACK | DATAGRAM | CONNECT | {0x14E9CD29: 1} | LIMITED,
        TOKEN,
        Draft(Version.DRAFT_14, True, GRANTED),
    ),
    "webtransport-go 0.13": (
        DATAGRAM | CONNECT | {0x2C7CF000: 1},
        TOKEN_H3,
        Draft(Version.DRAFT_16),
    ),
    "webtransport-go 0.10": ({0x06: 1 << 20} | DATAGRAM, TOKEN, Draft(Version.DRAFT_07)),
    "wtransport 0.7": (
        {0x01: 0, 0x07: 0} | DATAGRAM | CONNECT | {0x2B603742: 1, 0xC671706A: 1},
        TOKEN,
        Draft(Version.DRAFT_07),
    ),
    "wtransport 0.1.1": (FIRST_GENERATION, TOKEN, Draft(Version.DRAFT_02, lenient=True)),
    "pywebtransport 0.8": (
        QPACK | DATAGRAM | CONNECT | {0x14E9CD29: 1, 0x2B61: 0, 0x2B64: 0, 0x2B65: 0},
        TOKEN,
        Draft(Version.DRAFT_14, True, Credit((1 << 62) - 1, 1 << 60, 1 << 60), bare_capsules=True),
    ),
    "aioquic": (
        QPACK | DATAGRAM | CONNECT | {0x21: 1, 0x2B603742: 1},
        TOKEN,
        Draft(Version.DRAFT_02),
    ),
    "aioquic 0.9, with the old datagram setting": (
        QPACK | OLD_DATAGRAM | CONNECT | {0x21: 1, 0x2B603742: 1},
        TOKEN,
        Draft(Version.DRAFT_02),
    ),
    "ourselves": (
        CLIENT,
        TOKEN_H3,
        Draft(Version.DRAFT_16, True, Credit(data=1 << 20, streams_bidi=128, streams_uni=128)),
    ),
}


class TestNegotiation:
    @pytest.mark.parametrize(("settings", "draft", "token"), SERVERS.values(), ids=SERVERS)
    def test_with_a_server(self, settings: dict[int, int], draft: Draft, token: bytes) -> None:
        check_settings(settings, max_datagram_size=SIZE)
        assert client_draft(CLIENT, settings, max_datagram_size=SIZE) == draft
        assert draft.token == token
        # What it does not know it ignores, wherever it stands.
        greased = {**GREASE, **settings, 0x1F * 77 + 0x21: 0}
        check_settings(greased, max_datagram_size=SIZE)
        assert client_draft(CLIENT, greased, max_datagram_size=SIZE) == draft

    @pytest.mark.parametrize(("settings", "token", "draft"), CLIENTS.values(), ids=CLIENTS)
    def test_with_a_client(self, settings: dict[int, int], token: bytes, draft: Draft) -> None:
        check_settings(settings, max_datagram_size=SIZE)
        assert server_draft(SERVER, settings, token, max_datagram_size=SIZE) == draft
        greased = {**GREASE, **settings, 0x1F * 77 + 0x21: 0}
        check_settings(greased, max_datagram_size=SIZE)
        assert server_draft(SERVER, greased, token, max_datagram_size=SIZE) == draft

    @pytest.mark.parametrize(
        "announced", list(product([0, 1], repeat=4)), ids=lambda on: "".join(map(str, on))
    )
    def test_the_highest_draft_of_both(self, announced: tuple[int, ...]) -> None:
        codepoints = (0x2B603742, 0xC671706A, 0x14E9CD29, 0x2C7CF000)
        versions = (2, 7, 14, 16)
        settings = DATAGRAM | CONNECT | dict(zip(codepoints, announced, strict=True))
        expected = max((v for v, on in zip(versions, announced, strict=True) if on), default=None)
        if expected is None:
            with pytest.raises(NoWebTransportError, match="do not offer WebTransport"):
                client_draft(CLIENT, settings, max_datagram_size=SIZE)
        else:
            draft = client_draft(CLIENT, settings, max_datagram_size=SIZE)
            assert draft.version == expected
            assert server_draft(SERVER, settings, TOKEN, max_datagram_size=SIZE) == draft

    @pytest.mark.parametrize("local", [CLIENT, offered_settings(NO_FLOW_CONTROL, is_client=True)])
    @pytest.mark.parametrize("remote", [{}, {0x2B61: 1}, {0x2B64: 1}, {0x2B65: 1}, {0x2B61: 0}])
    def test_flow_control_needs_both(self, local: dict[int, int], remote: dict[int, int]) -> None:
        settings = DATAGRAM | CONNECT | {0x2C7CF000: 1} | remote
        draft = client_draft(local, settings, max_datagram_size=SIZE)
        assert draft.flow_control == (local is CLIENT and any(remote.values()))
        assert draft == server_draft(local, settings, TOKEN_H3, max_datagram_size=SIZE)

    def test_names_for_people(self) -> None:
        assert [str(Draft(version)) for version in Version] == [
            "draft-02",
            "draft-07",
            "draft-14",
            "draft-16",
        ]


class TestRequirements:
    OFFER = DATAGRAM | CONNECT | {0x2C7CF000: 1}

    def test_a_server_without_webtransport(self) -> None:
        with pytest.raises(NoWebTransportError, match="do not offer WebTransport"):
            client_draft(CLIENT, QPACK | DATAGRAM | CONNECT, max_datagram_size=SIZE)

    def test_a_server_without_datagrams(self) -> None:
        with pytest.raises(NoWebTransportError, match="no datagrams"):
            client_draft(CLIENT, CONNECT | {0x2C7CF000: 1}, max_datagram_size=SIZE)
        with pytest.raises(NoWebTransportError, match="no datagrams"):
            client_draft(CLIENT, self.OFFER | {0x33: 0}, max_datagram_size=SIZE)
        with pytest.raises(NoWebTransportError, match="no datagrams"):
            client_draft(CLIENT, self.OFFER, max_datagram_size=0)

    @pytest.mark.parametrize("codepoint", [0xC671706A, 0x14E9CD29, 0x2C7CF000])
    @pytest.mark.parametrize("connect", [{}, {0x08: 0}])
    def test_a_server_without_extended_connect(
        self, codepoint: int, connect: dict[int, int]
    ) -> None:
        with pytest.raises(NoWebTransportError, match="no extended CONNECT"):
            client_draft(CLIENT, DATAGRAM | connect | {codepoint: 1}, max_datagram_size=SIZE)

    def test_a_client_without_datagrams(self) -> None:
        for settings, size in (({0x2C7CF000: 1}, SIZE), (self.OFFER, 0)):
            with pytest.raises(StreamProtocolError, match=r"MESSAGE_ERROR: .* no datagrams"):
                server_draft(SERVER, settings, TOKEN_H3, max_datagram_size=size)


class TestLenient:
    def test_leniency_is_for_the_first_generation_only(self) -> None:
        assert is_lenient(FIRST_GENERATION)
        assert is_lenient({0xFFD277: 1, 0x2B603742: 1})
        assert is_lenient({0xFFD277: 1, 0x2B603742: 1} | GREASE)
        peers = [(name, peer[0]) for name, peer in SERVERS.items()]
        peers += [(name, peer[0]) for name, peer in CLIENTS.items()]
        named = [name for name, settings in peers if is_lenient(settings)]
        assert named == ["wtransport 0.1.1", "wtransport 0.1.1"]

    @given(st.sampled_from(Setting), st.integers(0, 1 << 40))
    def test_any_other_setting_makes_it_another_peer(self, setting: Setting, value: int) -> None:
        neutral = {
            Setting.QPACK_MAX_TABLE_CAPACITY,
            Setting.MAX_FIELD_SECTION_SIZE,
            Setting.QPACK_BLOCKED_STREAMS,
        }
        settings = FIRST_GENERATION | {setting: value}
        if setting in FIRST_GENERATION and setting not in neutral:
            assert is_lenient(settings) == bool(value)
        else:
            assert is_lenient(settings) == (setting in neutral)

    @pytest.mark.parametrize("missing", [0xFFD277, 0x2B603742])
    def test_nor_is_one_with_less(self, missing: int) -> None:
        settings = {key: value for key, value in FIRST_GENERATION.items() if key != missing}
        assert not is_lenient(settings)
        assert not is_lenient({})


class TestOffer:
    def test_a_server_that_all_of_them_accept(self) -> None:
        assert SERVER == {
            0x06: 16_384,
            0x08: 1,
            0x33: 1,
            0xFFD277: 1,
            0x2B603742: 1,
            0x2B603743: 16,
            0xC671706A: 16,
            0x14E9CD29: 16,
            0x2C7CF000: 1,
            0x2B61: 1 << 20,
            0x2B64: 128,
            0x2B65: 128,
        }

    def test_a_client_differs_in_its_cap_on_sessions(self) -> None:
        caps = (0x2B603743, 0xC671706A, 0x14E9CD29)
        assert SERVER | dict.fromkeys(caps, 1) == CLIENT

    @given(
        st.builds(
            Limits,
            max_sessions=st.integers(1, 1000),
            initial_max_data=st.integers(0, 1 << 40),
            initial_max_streams_bidi=st.integers(0, 1000),
            initial_max_streams_uni=st.integers(0, 1000),
        ),
        st.booleans(),
    )
    def test_what_is_offered_is_always_accepted(self, limits: Limits, is_client: bool) -> None:
        settings = offered_settings(limits, is_client=is_client)
        check_settings(settings, max_datagram_size=SIZE)
        draft = client_draft(CLIENT, settings, max_datagram_size=SIZE)
        assert draft.version is Version.DRAFT_16
        assert draft.granted == Credit(
            limits.initial_max_data,
            limits.initial_max_streams_bidi,
            limits.initial_max_streams_uni,
        )
        assert draft.flow_control == draft.granted.wanted
        assert not draft.lenient


class TestErrors:
    def refused(self, settings: dict[int, int], size: int = SIZE) -> str:
        with pytest.raises(ConnectionProtocolError) as raised:
            check_settings(settings, max_datagram_size=size)
        assert raised.value.code == ErrorCode.H3_SETTINGS_ERROR
        return raised.value.reason

    @pytest.mark.parametrize("setting", [0x00, 0x02, 0x03, 0x04, 0x05])
    @pytest.mark.parametrize("value", [0, 1])
    def test_settings_of_http2(self, setting: int, value: int) -> None:
        assert "HTTP/2" in self.refused(SERVER | {setting: value})

    @pytest.mark.parametrize("setting", [0x08, 0x33, 0x2C7CF000])
    @pytest.mark.parametrize("value", [2, (1 << 62) - 1])
    def test_switches_that_are_neither_on_nor_off(self, setting: int, value: int) -> None:
        assert "neither 0 nor 1" in self.refused(SERVER | {setting: value})

    def test_http_datagrams_without_quics(self) -> None:
        assert "without QUIC datagrams" in self.refused(DATAGRAM, 0)
        check_settings({0x33: 0}, max_datagram_size=0)
        check_settings({}, max_datagram_size=0)

    @given(
        st.dictionaries(
            st.integers(6, (1 << 62) - 1).filter(lambda key: key not in set(Setting))
            | st.sampled_from([0x01, 0x06, 0x07, 0x2B61, 0x2B64, 0x2B65, 0x14E9CD29, 0xC671706A]),
            st.integers(0, (1 << 62) - 1),
            max_size=8,
        )
    )
    def test_all_others_may_have_any_value(self, settings: dict[int, int]) -> None:
        check_settings(settings, max_datagram_size=SIZE)
