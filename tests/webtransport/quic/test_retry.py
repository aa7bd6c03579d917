from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.quic.retry import LIFETIME, RetryTokens

KEY = bytes(range(32))
ORIGINAL, RETRY = b"original id", b"retry id"
ADDRESSES = [
    ("192.0.2.1", 4433),
    ("2001:db8::1", 4433, 0, 0),
    ("::ffff:192.0.2.1", 4433, 0, 0),
    ("fe80::1%lo", 4433, 0, 1),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_token_is_good_where_it_was_sent_to(address: tuple[str, int]) -> None:
    token = RetryTokens(KEY).make(address, ORIGINAL, RETRY, 1_000.0)
    assert RetryTokens(KEY).validate(address, RETRY, token, 1_000.0) == ORIGINAL
    assert RetryTokens(KEY).validate(address, RETRY, token, 1_000.0 + LIFETIME) == ORIGINAL


@pytest.mark.parametrize(
    ("address", "retry_id", "now", "text"),
    [
        (("192.0.2.2", 4433), RETRY, 1_000.0, "another client"),
        (("192.0.2.1", 4434), RETRY, 1_000.0, "another client"),
        (("192.0.2.1", 4433), RETRY + b"x", 1_000.0, "another client"),
        (("192.0.2.1", 4433), RETRY[:-1], 1_000.0, "another client"),
        (("192.0.2.1", 4433), RETRY, 1_000.1 + LIFETIME, "too old"),
        # Of the time before the machine was started anew.
        (("192.0.2.1", 4433), RETRY, 999.9 - LIFETIME, "too old"),
    ],
)
def test_token_is_good_nowhere_else(
    address: tuple[str, int], retry_id: bytes, now: float, text: str
) -> None:
    token = RetryTokens(KEY).make(("192.0.2.1", 4433), ORIGINAL, RETRY, 1_000.0)
    with pytest.raises(ValueError, match=text):
        RetryTokens(KEY).validate(address, retry_id, token, now)


def test_token_of_another_key_is_not_a_retry_token() -> None:
    token = RetryTokens(bytes(32)).make(("192.0.2.1", 4433), ORIGINAL, RETRY, 1_000.0)
    assert RetryTokens(KEY).validate(("192.0.2.1", 4433), RETRY, token, 1_000.0) is None


def test_token_of_an_ipv6_address_is_no_ipv4_addresss() -> None:
    """Whose id continues where the address ends: the two are told apart."""
    address = ("2001:db8:a:b:c:d:e:f", 4433, 0, 0)
    token = RetryTokens(KEY).make(address, ORIGINAL, RETRY, 1_000.0)
    rest = bytes.fromhex("000a000b000c000d000e000f")
    with pytest.raises(ValueError, match="another client"):
        RetryTokens(KEY).validate(("32.1.13.184", 4433), rest + RETRY, token, 1_000.0)


@given(token=st.binary(max_size=100))
def test_garbage_is_not_a_retry_token(token: bytes) -> None:
    assert RetryTokens(KEY).validate(("192.0.2.1", 4433), RETRY, token, 1_000.0) is None


def test_every_byte_of_a_token_counts() -> None:
    tokens = RetryTokens(KEY)
    token = tokens.make(("192.0.2.1", 4433), ORIGINAL, RETRY, 1_000.0)
    assert tokens.make(("192.0.2.1", 4433), ORIGINAL, RETRY, 1_000.0) != token
    for at in range(len(token)):
        damaged = token[:at] + bytes((token[at] ^ 1,)) + token[at + 1 :]
        assert tokens.validate(("192.0.2.1", 4433), RETRY, damaged, 1_000.0) is None
        assert tokens.validate(("192.0.2.1", 4433), RETRY, token[:at], 1_000.0) is None


def test_ids_of_all_sizes_come_back() -> None:
    tokens = RetryTokens(KEY)
    for size in range(21):
        original = os.urandom(size)
        token = tokens.make(("192.0.2.1", 4433), original, RETRY, 5.0)
        assert tokens.validate(("192.0.2.1", 4433), RETRY, token, 6.0) == original
