"""Credentials from a file, one per line, all of them valid; read again when it changes.

To change a token, add the new one, switch the clients to it, then remove the old one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from .files import Reloaded, WatchedFile

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

SHORTEST = 16
"""Characters; shorter tokens and passwords can be guessed, and are logged as a warning."""

Kind: TypeAlias = Literal["token", "password"]

_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_COMMENT = re.compile(rb"(?:\A|(?<=[ \t]))#.*")
_LOGIN = re.compile(rb"[^:#\x00-\x1f\x7f][^:\x00-\x1f\x7f]*:([^\x00-\x1f\x7f]+)")


class CredentialsError(Exception):
    """A file of credentials that cannot be used; the text is one line that says what to do."""


class Credentials(NamedTuple):
    """What is in a file of credentials."""

    digests: frozenset[bytes]
    """SHA-256 of each token, or of each ``user:password``."""
    short_lines: tuple[int, ...]
    """The lines of those below `SHORTEST`."""


def parse_tokens(data: bytes) -> Credentials:
    """Read tokens, one per line; `#` begins a comment, at a line's start or after a space.

    Raises `CredentialsError` if there is no token, or a line is not one (RFC 6750, section 2.1).
    Its text never contains the line.
    """
    return _credentials([(number, token, token) for number, token in read_tokens(data)])


def read_tokens(data: bytes) -> list[tuple[int, bytes]]:
    """Each token with the number of its line; raises as `parse_tokens` does."""
    found = []
    for number, line in _lines(data):
        token = _COMMENT.sub(b"", line).strip(b" \t")
        if not token:
            continue
        if not _TOKEN.fullmatch(token):
            raise CredentialsError(
                f"line {number} is not a token: write one per line, of letters, digits and -._~+/,"
                " with = only at its end"
            )
        found.append((number, token))
    if not found:
        raise CredentialsError("it holds no token: write at least one, one per line")
    return found


def parse_passwords(data: bytes) -> Credentials:
    """Read ``user:password``, one per line; a line that begins with `#` is a comment.

    Raises `CredentialsError` if there is no line, or one without a user or a password. Its text
    never contains the line.
    """
    found = []
    for number, line in _lines(data):
        if not line.strip() or line.startswith(b"#"):
            continue
        match = _LOGIN.fullmatch(line)
        if match is None:
            raise CredentialsError(
                f"line {number} is not user:password: write one per line, the password not encrypted"
            )
        found.append((number, line, match[1]))
    if not found:
        raise CredentialsError(
            "it holds no password: write at least one user:password, one per line"
        )
    return _credentials(found)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return enumerate((line.rstrip(b"\r") for line in lines), 1)


def _credentials(found: list[tuple[int, bytes, bytes]]) -> Credentials:
    """From line numbers, what clients send for each line, and the secret part of that."""
    return Credentials(
        frozenset(_digest(sent) for _, sent, _ in found),
        tuple(number for number, _, secret in found if len(secret) < SHORTEST),
    )


_PARSERS: dict[Kind, Callable[[bytes], Credentials]] = {
    "token": parse_tokens,
    "password": parse_passwords,
}


class CredentialsFile:
    """The current credentials of a file."""

    def __init__(self, path: Path, kind: Kind, logger: FilteringBoundLogger) -> None:
        """Raises `CredentialsError` where the file cannot be used."""
        self._path = path
        self._kind = kind
        self._logger = logger
        self._file = WatchedFile(path)
        self._credentials = Reloaded(
            self._file.changed, self._read, CredentialsError, self._log_unusable
        )
        self._log_loaded()

    @property
    def reload_failed(self) -> bool:
        """Whether the file now cannot be used; the credentials from before then stay valid."""
        return self._credentials.failed

    def __len__(self) -> int:
        return len(self._credentials.value.digests)

    def matches(self, sent: bytes) -> bool:
        """Whether these are the credentials of a line; takes the same time for every line."""
        digest = _digest(sent)
        known = False
        for one in self._credentials.value.digests:
            known |= hmac.compare_digest(one, digest)
        return known

    def check(self, now: float) -> None:
        """Read the file again if it has changed; cheap enough for every second.

        `now` is in seconds of a monotonic clock.
        """
        if self._credentials.check(now):
            self._log_loaded()

    def _read(self) -> Credentials:
        try:
            return _PARSERS[self._kind](self._file.read())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CredentialsError(
                f"cannot read the {self._kind} file {self._path}: {reason}; check its path and"
                " permissions"
            ) from None
        except CredentialsError as error:
            raise CredentialsError(
                f"the {self._kind} file {self._path} cannot be used: {error}"
            ) from None

    def _log_loaded(self) -> None:
        are_tokens = self._kind == "token"
        self._logger.info("tokens_loaded" if are_tokens else "passwords_loaded", count=len(self))
        short_lines = self._credentials.value.short_lines
        if short_lines:
            self._logger.warning(
                "tokens_short" if are_tokens else "passwords_short",
                lines=list(short_lines),
                warning=f"{self._kind}s of less than {SHORTEST} characters can be guessed: make"
                " longer ones (openssl rand -hex 32)",
            )

    def _log_unusable(self, error: str | None) -> None:
        are_tokens = self._kind == "token"
        if error is None:
            self._logger.info("token_file_usable" if are_tokens else "password_file_usable")
        else:
            self._logger.error(
                "token_file_unusable" if are_tokens else "password_file_unusable",
                error=error,
                **{"tokens_kept" if are_tokens else "passwords_kept": len(self)},
            )


def _digest(sent: bytes) -> bytes:
    return hashlib.sha256(sent).digest()
