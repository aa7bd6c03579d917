from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.client.ping.labels import labels, titles


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["https://a.example:4433/ping"], ["a.example"]),
        (["https://a.example:4433/ping", "https://b.example/"], ["a.example", "b.example"]),
        (
            ["https://a.example:1/ping", "https://a.example:2/ping", "https://b.example:1/ping"],
            ["a.example:1", "a.example:2", "b.example"],
        ),
        (["https://[::1]:1/", "https://[::1]:2/"], ["[::1]:1", "[::1]:2"]),
        (["https://[fe80::1%eth0]:1/", "https://[::1]:2/"], ["fe80::1%eth0", "::1"]),
        (
            ["https://a:1/ping", "https://a:1/", "https://a:1/ping?x=1"],
            ["a:1/ping", "a:1/", "a:1/ping?***"],
        ),
        # What a query holds may be a secret.
        (
            ["https://a:1/ping?key=s3cret", "https://b:1/ping", "https://a:1/ping?key=s3cret2"],
            ["a:1/ping?***", "b", "a:1/ping?***#2"],
        ),
        (["https://a:1/ping?s3cret", "https://b:1/ping"], ["a", "b"]),
    ],
)
def test_as_short_as_they_can_be(urls: list[str], names: list[str]) -> None:
    assert labels(urls) == names


@given(
    st.lists(
        st.builds(
            "https://{}:{}{}".format,
            st.sampled_from(["a", "b.example", "[::1]", "10.0.0.1"]),
            st.integers(1, 3),
            st.sampled_from(["/", "/ping", "/ping?x", "/ping?y"]),
        ),
        unique=True,
        max_size=8,
    )
)
def test_no_two_are_alike(urls: list[str]) -> None:
    for names in (labels(urls), titles(urls)):
        assert len(set(names)) == len(urls)
        assert not any("?x" in name or "?y" in name for name in names)
