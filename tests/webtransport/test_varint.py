from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport import varint

VALUES = st.one_of(
    *(st.integers(0, (1 << bits) - 1) for bits in (6, 14, 30, 62)),
    st.sampled_from([0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, varint.MAX]),
)


def encode_as(value: int, length: int) -> bytes:
    """Any of the four lengths, also a longer one than the value needs."""
    prefix = {1: 0, 2: 1, 4: 2, 8: 3}[length] << (8 * length - 2)
    return (prefix | value).to_bytes(length, "big")


# RFC 9000, appendix A.1.
@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
    ],
)
def test_examples_of_the_rfc(data: str, value: int) -> None:
    encoded = bytes.fromhex(data)
    assert varint.decode(encoded) == (value, len(encoded))
    assert varint.encode(value) == encoded


def test_example_of_the_rfc_that_is_longer_than_needed() -> None:
    assert varint.decode(bytes.fromhex("4025")) == (37, 2)


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (0, 1),
        (63, 1),
        (64, 2),
        (16_383, 2),
        (16_384, 4),
        ((1 << 30) - 1, 4),
        (1 << 30, 8),
        ((1 << 62) - 1, 8),
    ],
)
def test_the_shortest_length_is_used(value: int, length: int) -> None:
    assert varint.encode(value) == encode_as(value, length)


@pytest.mark.parametrize("value", [-1, -(1 << 62), 1 << 62, 1 << 64])
def test_values_that_do_not_fit(value: int) -> None:
    with pytest.raises(ValueError, match=str(value)):
        varint.encode(value)


@given(VALUES, st.binary(max_size=9), st.binary(max_size=9))
def test_round_trip_anywhere_in_the_data(value: int, before: bytes, behind: bytes) -> None:
    encoded = varint.encode(value)
    data = before + encoded + behind
    expected = (value, len(before) + len(encoded))
    assert varint.decode(data, len(before)) == expected
    assert varint.decode(bytearray(data), len(before)) == expected
    assert varint.decode(memoryview(data), len(before)) == expected


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_every_length_is_accepted_and_every_part_of_it_is_too_little(
    length: int, data: st.DataObject
) -> None:
    value = data.draw(st.integers(0, (1 << (8 * length - 2)) - 1))
    encoded = encode_as(value, length)
    for end in range(length):
        assert varint.decode(encoded[:end]) is None
        assert varint.decode(b"??" + encoded[:end], 2) is None
    assert varint.decode(encoded) == (value, length)


@given(st.binary(max_size=10), st.integers(0, 12))
def test_any_bytes_decode_to_a_value_that_fits_or_to_nothing(data: bytes, offset: int) -> None:
    decoded = varint.decode(data, offset)
    if decoded is None:
        assert offset >= len(data) or len(data) - offset < 1 << (data[offset] >> 6)
    else:
        value, end = decoded
        assert 0 <= value <= varint.MAX
        assert data[offset:end] == encode_as(value, end - offset)
