"""Bearer tokens from a file that changes."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.server.auth.tokens import TokenFile
from pingpong.server.sessions.admission import WRONG_TOKEN, Refusal
from pingpong.settings import credentials
from pingpong.settings.credentials import CredentialsError, parse_tokens

ONE = b"one-token-of-some-length"
TWO = b"another.token/of+some~length=="
Events = list[dict[str, Any]]


def digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def ask(file: TokenFile, token: bytes) -> Refusal | None:
    decisions: list[Refusal | None] = []
    file.authorize(token, decisions.append)
    (decision,) = decisions
    return decision


def names(logged: Events) -> list[str]:
    return [event["event"] for event in logged]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_bytes(ONE + b"\n" + TWO + b"\n")
    return file


# What is in it

TOKEN = st.from_regex(rb"[A-Za-z0-9._~+/-]{1,40}={0,2}", fullmatch=True)
SPACE = st.sampled_from([b"", b" ", b"\t", b"  \t"])
COMMENT = st.binary(max_size=20).map(lambda text: b"#" + text.replace(b"\n", b""))
END = st.sampled_from([b"\n", b"\r\n"])
NOTHING = st.tuples(SPACE, st.just(b"") | COMMENT, END).map(b"".join)


@given(st.lists(st.tuples(st.lists(NOTHING, max_size=2), TOKEN, SPACE, st.booleans()), min_size=1))
def test_tokens_are_found_among_comments_and_space(
    lines: list[tuple[list[bytes], bytes, bytes, bool]],
) -> None:
    data = b""
    for nothing, token, space, commented in lines:
        end = space + (b" # whose" if commented else b"") + b"\n"
        data += b"".join(nothing) + space + token + end
    expected = [token for _, token, _, _ in lines]
    for text in (data, data.removesuffix(b"\n"), b"\xef\xbb\xbf" + data):
        found = parse_tokens(text)
        assert found.digests == {digest(token) for token in expected}
        assert len(found.short_lines) == sum(len(token) < 16 for token in expected)


@given(st.binary(max_size=60))
def test_whatever_is_in_it_an_error_does_not_show_it(data: bytes) -> None:
    secret = b"SECRET" + data.replace(b"\n", b"") + b"TERCES"
    try:
        text = repr(parse_tokens(secret))
    except CredentialsError as error:
        text = str(error)
    assert "SECRET" not in text
    assert text.startswith(("line 1 is not a token: ", "Credentials("))


@pytest.mark.parametrize("data", [b"", b"\n\r\n", b"# nothing\n  # yet", b"\xef\xbb\xbf"])
def test_no_token_at_all(data: bytes) -> None:
    with pytest.raises(CredentialsError, match=r"holds no token: write at least one"):
        parse_tokens(data)


@pytest.mark.parametrize(
    "line", [b"two words", b"a#b", b"Bearer abc", b"a=b", b"\x00", b"t\xc3\xb6ken", b"a:b", b'"a"']
)
def test_a_line_that_is_no_token_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(CredentialsError, match=r"\Aline 3 is not a token: write one per line"):
        parse_tokens(ONE + b"\n\n" + line + b"\n" + TWO)


def test_short_tokens_are_warned_about_by_their_lines(path: Path, logged: Events) -> None:
    path.write_bytes(b"# mine\nshort\n" + b"x" * 15 + b"\n" + b"y" * 16 + b"\n")
    file = TokenFile(path)
    assert ask(file, b"short") is None
    assert names(logged) == ["tokens_loaded", "tokens_short"]
    assert logged[0]["count"] == 3
    assert logged[1]["lines"] == [2, 3]
    assert logged[1]["log_level"] == "warning"
    assert "short\n" not in str(logged)


# Who is let in


def test_each_token_of_the_file_is_good(path: Path) -> None:
    file = TokenFile(path)
    assert len(file) == 2
    assert ask(file, ONE) is None
    assert ask(file, TWO) is None
    for other in (b"", ONE[:-1], ONE + b"x", ONE.upper(), ONE + b"\n" + TWO):
        assert ask(file, other) == WRONG_TOKEN


def test_every_token_is_compared_whole_whichever_is_good(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"\n".join(b"token-number-%d-of-five" % n for n in range(5)))
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    file = TokenFile(path)
    monkeypatch.setattr(credentials, "hmac", SimpleNamespace(compare_digest=compare))
    for number in range(6):
        compared.clear()
        ask(file, b"token-number-%d-of-five" % number)
        assert len(compared) == 5
        assert {len(side) for pair in compared for side in pair} == {32}


# At the start


def test_a_missing_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError) as caught:
        TokenFile(tmp_path / "none")
    text = str(caught.value)
    assert text.startswith(f"cannot read the token file {tmp_path / 'none'}: no such file")
    assert text.endswith("check its path and permissions")


@pytest.mark.parametrize("content", [b"", b"# none yet\n", b"a secret password"])
def test_a_file_that_cannot_be_used_is_an_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CredentialsError) as caught:
        TokenFile(path)
    assert str(caught.value).startswith(f"the token file {path} cannot be used: ")
    assert "secret" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="cannot read the token file"):
        TokenFile(tmp_path)


# Later


def test_a_changed_file_is_read_again(path: Path, logged: Events) -> None:
    file = TokenFile(path)
    path.write_bytes(TWO + b"\nthe-new-token-of-today\n")
    assert ask(file, ONE) is None
    file.check(1.0)
    assert ask(file, ONE) == WRONG_TOKEN
    assert ask(file, TWO) is None
    assert ask(file, b"the-new-token-of-today") is None
    file.check(2.0)
    assert names(logged) == ["tokens_loaded", "tokens_loaded"]


def test_kubernetes_replaces_the_folder_behind_a_link(tmp_path: Path) -> None:
    for version, token in (("v1", ONE), ("v2", TWO)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens").write_bytes(token)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    file = TokenFile(tmp_path / "tokens")
    (tmp_path / "..data_tmp").symlink_to("v2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    file.check(1.0)
    assert (ask(file, ONE), ask(file, TWO)) == (WRONG_TOKEN, None)


def test_a_bad_file_changes_nothing_and_is_reported_once_a_minute(
    path: Path, logged: Events
) -> None:
    file = TokenFile(path)
    path.write_bytes(b"hunter2 is my password")
    for second in range(1, 130):
        file.check(float(second))
    assert file.reload_failed
    assert ask(file, ONE) is None
    assert names(logged) == ["tokens_loaded", *["token_file_unusable"] * 3]
    last = logged[-1]
    assert last["error"].startswith(f"the token file {path} cannot be used: line 1 is not a token")
    assert (last["tokens_kept"], last["log_level"]) == (2, "error")
    assert "hunter2" not in str(logged)


@pytest.mark.parametrize("content", [b"", None])
def test_a_file_that_is_empty_or_gone_changes_nothing(
    path: Path, content: bytes | None, logged: Events
) -> None:
    file = TokenFile(path)
    good = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for second in range(1, 5):
        file.check(float(second))
    assert file.reload_failed
    assert ask(file, ONE) is None
    path.write_bytes(good)
    file.check(6.0)
    assert not file.reload_failed
    assert ask(file, ONE) is None
    assert names(logged) == ["tokens_loaded", "token_file_unusable", "token_file_usable"]


def test_a_file_in_the_midst_of_being_written_is_no_news(path: Path, logged: Events) -> None:
    file = TokenFile(path)
    path.write_bytes(b"")
    file.check(1.0)
    path.write_bytes(TWO)
    file.check(2.0)
    assert not file.reload_failed
    assert ask(file, ONE) == WRONG_TOKEN
    assert names(logged) == ["tokens_loaded", "tokens_loaded"]
