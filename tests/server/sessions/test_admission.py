"""Who is let in, and how fast a session may ask: no socket, no clock."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pingpong.server.sessions.admission import (
    DRAINING,
    FORBIDDEN_ORIGIN,
    NO_TOKEN,
    SEVERAL_TOKENS,
    UNKNOWN_PATH,
    WRONG_TOKEN,
    Admission,
    Decided,
    RateLimit,
    Refusal,
    bearer_tokens,
)
from pingpong.server.sessions.counters import Result
from pingpong.webtransport import serialize_origin
from pingpong.webtransport.events import Request

SECOND = 1_000_000_000


class Asked:
    """An authority that knows one token, and decides when it is told to, or at once."""

    def __init__(self, *, later: bool = False) -> None:
        self.tokens: list[bytes] = []
        self.waiting: list[Decided] = []
        self.later = later

    def authorize(self, token: bytes, decided: Decided) -> None:
        self.tokens.append(token)
        if self.later:
            self.waiting.append(decided)
        else:
            decided(None if token == b"good" else WRONG_TOKEN)


def request(
    path: str = "/ping", origin: str | None = None, *authorization: bytes, **headers: bytes
) -> Request:
    fields = [(b"authorization", value) for value in authorization]
    fields += [(name.encode(), value) for name, value in headers.items()]
    return Request("localhost", path, origin, headers=fields)


def decide(admission: Admission, asked: Request) -> Refusal | None:
    decisions: list[Refusal | None] = []
    admission.decide(asked, decisions.append)
    (decision,) = decisions
    return decision


def admission(*origins: str, authority: Asked | None = None, draining: bool = False) -> Admission:
    made = Admission({"/", "/ping"}, allowed_origins=origins, authority=authority)
    made.draining = draining
    return made


# Who is let in


def test_anybody_is_let_in_where_nothing_is_set() -> None:
    assert decide(admission(), request()) is None
    assert decide(admission(), request("/?a=/b", "https://anywhere.example")) is None
    assert decide(admission(), request("/", "null", b"Basic eA==")) is None


@pytest.mark.parametrize("path", ["/pong", "", "//", "/ping/", "/Ping", "/x?/ping"])
def test_unknown_paths(path: str) -> None:
    refusal = decide(admission(), request(path))
    assert refusal == Refusal(Result.PATH, 404)


def test_no_request_is_accepted_while_draining() -> None:
    refusal = decide(admission(draining=True), request())
    assert refusal is not None
    assert (refusal.result, refusal.status) == ("draining", 503)
    assert dict(refusal.headers)[b"retry-after"].isdigit()


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("HTTPS://App.Example:443", True),
        ("http://localhost:8000", True),
        ("https://xn--bcher-kva.example", True),
        ("https://[::1]:4433", True),
        ("http://app.example", False),
        ("https://app.example:8443", False),
        ("https://app.example.evil.example", False),
        ("https://evil.example/https://app.example", False),
        ("https://app.example/", False),
        ("https://app.example.", False),
        ("https://sub.app.example", False),
        ("http://localhost", False),
        ("https://app.example, https://app.example", False),
        ("null", False),
        ("*", False),
        ("", False),
        ("https://b\u00fccher.example", False),
        ("https://\u00aapp.example", False),
    ],
)
def test_origins(origin: str, allowed: bool) -> None:
    asked = admission(
        "https://APP.example",
        "http://localhost:8000",
        "https://bücher.example",
        "https://[0:0:0:0:0:0:0:1]:4433",
    )
    assert decide(asked, request(origin=origin)) == (None if allowed else FORBIDDEN_ORIGIN)
    assert (FORBIDDEN_ORIGIN.result, FORBIDDEN_ORIGIN.status) == ("origin", 403)


def test_who_is_no_browser_has_no_origin_and_passes() -> None:
    assert decide(admission("https://app.example"), request()) is None


@pytest.mark.parametrize("origin", ["https://anywhere.example", "null", "file://", "?"])
def test_any_origin_can_be_allowed(origin: str) -> None:
    assert decide(admission("https://app.example", "*"), request(origin=origin)) is None


def test_an_origin_that_is_none_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ValueError, match=r"not an origin: 'https://a\.example/path'"):
        admission("https://a.example/path")


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ((b"Bearer good",), None),
        ((b"bearer  good",), None),
        ((b"Bearer bad",), WRONG_TOKEN),
        ((), NO_TOKEN),
        ((b"Basic Z29vZA==",), WRONG_TOKEN),
        ((b"good",), WRONG_TOKEN),
        ((b"Bearer good, Bearer good",), WRONG_TOKEN),
        ((b"Bearer good", b"Bearer good"), SEVERAL_TOKENS),
        ((b"Bearer good", b"Basic Z29vZA=="), SEVERAL_TOKENS),
    ],
)
def test_tokens(authorization: tuple[bytes, ...], expected: Refusal | None) -> None:
    asked = request("/ping", None, *authorization)
    assert decide(admission(authority=Asked()), asked) == expected


def test_what_is_answered_about_tokens() -> None:
    challenges = [
        (refusal.result, refusal.status, dict(refusal.headers)[b"www-authenticate"])
        for refusal in (NO_TOKEN, WRONG_TOKEN, SEVERAL_TOKENS)
    ]
    assert challenges == [
        ("unauthorized", 401, b"Bearer"),
        ("unauthorized", 401, b'Bearer error="invalid_token"'),
        ("malformed", 400, b'Bearer error="invalid_request"'),
    ]


def test_a_token_in_the_path_is_none() -> None:
    asked = request("/ping?token=good&access_token=good")
    assert decide(admission(authority=Asked()), asked) == NO_TOKEN


def test_sessions_are_counted_while_they_last_and_when_they_end() -> None:
    made = admission()
    made.counters.opened()
    made.counters.opened()
    assert made.active == 2
    made.counters.closed(1.5)
    assert made.active == 1
    assert (made.counters.durations.count, made.counters.durations.sum) == (1, 1.5)
    assert made.counters.results[Result.ACCEPTED] == 2


def test_a_refusal_reveals_as_little_as_possible() -> None:
    """Each check hides what comes behind it."""
    authority = Asked()
    strict = admission("https://app.example", authority=authority, draining=True)
    evil = "https://evil.example"
    assert decide(strict, request("/x", evil)) == UNKNOWN_PATH
    assert decide(strict, request("/ping", evil)) == DRAINING
    strict.draining = False
    assert decide(strict, request("/ping", evil, b"Bearer good")) == FORBIDDEN_ORIGIN
    assert decide(strict, request("/ping")) == NO_TOKEN
    assert authority.tokens == []
    assert decide(strict, request("/ping", None, b"Bearer bad")) == WRONG_TOKEN
    assert decide(strict, request("/ping", None, b"Bearer good")) is None


def test_what_has_changed_while_the_token_was_verified_counts() -> None:
    authority = Asked(later=True)
    slow = admission(authority=authority)
    decisions: list[Refusal | None] = []
    for _ in range(3):
        slow.decide(request("/", None, b"Bearer good"), decisions.append)
    assert decisions == []
    first, second, third = authority.waiting
    first(None)
    second(WRONG_TOKEN)
    slow.draining = True
    third(None)
    assert decisions == [None, WRONG_TOKEN, DRAINING]


@given(st.binary(max_size=40))
def test_only_a_bearer_token_is_read_out_of_a_field(value: bytes) -> None:
    (token,) = bearer_tokens([(b"authorization", value), (b"x-authorization", b"Bearer a")])
    if token is not None:
        assert value.lower().startswith(b"bearer ")
        assert value.endswith(token)
        assert b" " not in token


# Origins

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=3).map(".".join)


def random_case(text: str, bits: int) -> str:
    return "".join(
        char.upper() if bits >> index & 1 else char.lower() for index, char in enumerate(text)
    )


@given(
    scheme=st.sampled_from(["http", "https", "chrome-extension"]),
    host=HOST | st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]"),
    port=st.none() | st.integers(1, 65_535),
    bits=st.integers(0, 2**60),
)
def test_equal_origins_are_equal_texts(scheme: str, host: str, port: int | None, bits: int) -> None:
    text = f"{scheme}://{host}" + (f":{port}" if port else "")
    serialized = serialize_origin(text)
    assert serialize_origin(random_case(text, bits)) == serialized
    assert serialize_origin(serialized) == serialized
    assert serialized.count(":") >= 1
    default = {"http": 80, "https": 443}.get(scheme)
    if port is None and default is not None:
        assert serialize_origin(f"{text}:{default}") == serialized
        assert serialize_origin(f"{text}:0{default}") == serialized
    elif port != default:
        assert serialized.endswith(f":{port}") == (port is not None)


@given(HOST, HOST, st.integers(1, 65_535), st.integers(1, 65_535))
def test_other_origins_are_other_texts(one: str, two: str, port: int, other: int) -> None:
    assume(one != two and port != other)
    origins = {
        serialize_origin(f"{scheme}://{host}:{number}")
        for scheme in ("http", "https")
        for host in (one, two)
        for number in (port, other)
    }
    assert len(origins) == 8


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "*", "app.example", "https:", "https://", "https://:443", "//app.example"),
        *("https://a.example/", "https://a.example?", "https://a.example#", "https://u@a.example"),
        *("https://a.example:", "https://a.example:0", "https://a.example:65536"),
        *("https://a.example:4x", "https://[::1", "https://[::g]", "https://::1"),
        *("https://a b", " https://a.example", "https://a.example\n", "https://a\\b"),
        *("https://b\u00fc..example", "1https://a.example"),
    ],
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        serialize_origin(text)


# Rates


class Bucket:
    """The obvious one: it fills by `rate` a second, up to `rate`, and a message takes one."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.level = Fraction(rate)
        self.now = 0

    def allow(self, now: int) -> bool:
        self.level = min(
            Fraction(self.rate), self.level + Fraction((now - self.now) * self.rate, SECOND)
        )
        self.now = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@given(
    rate=st.integers(1, 7) | st.sampled_from([999, 1000, 1_000_000]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 3 * SECOND) | st.integers(0, 2000) | st.sampled_from([0, SECOND]),
            st.integers(0, 12),
        ),
        max_size=40,
    ),
    start=st.integers(0, 2**62),
)
def test_rate_limit_is_the_obvious_bucket(
    rate: int, steps: list[tuple[int, int]], start: int
) -> None:
    one, many, bucket = RateLimit(rate), RateLimit(rate), Bucket(rate)
    bucket.now = now = start
    for pause, count in steps:
        now += pause
        expected = [bucket.allow(now) for _ in range(count)]
        assert [one.allow(now) for _ in range(count)] == expected
        assert many.take(now, count) == sum(expected)


@pytest.mark.parametrize("rate", [1, 3, 7, 1000])
def test_rate_is_kept_exactly_over_a_long_time(rate: int) -> None:
    """Of twice as many as are allowed, exactly the rate gets through once the burst is spent."""
    limit = RateLimit(rate)
    assert limit.take(0, 10 * rate) == rate
    seconds = 3
    allowed = sum(
        limit.allow(SECOND * step // (2 * rate)) for step in range(1, 2 * rate * seconds + 1)
    )
    assert allowed == rate * seconds


def test_a_rate_of_three_waits_a_third_of_a_second_to_the_nanosecond() -> None:
    limit = RateLimit(3)
    assert limit.take(0, 4) == 3
    assert not limit.allow(333_333_333)
    assert limit.allow(333_333_334)
    assert not limit.allow(666_666_666)
    assert limit.allow(666_666_667)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    limit = RateLimit(2)
    assert limit.take(10 * SECOND, 2) == 2
    assert not limit.allow(9 * SECOND)
    assert limit.take(0, 5) == 0
    assert not limit.allow(10 * SECOND + SECOND // 2 - 1)
    assert limit.allow(10 * SECOND + SECOND // 2)


def test_a_rate_below_one_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        RateLimit(0)
