"""Bearer tokens from a file: one a line, several valid at once, read again when it changes.

To change a token, add the new one, have the clients use it, then take the old one out. A token
that was taken out opens no more sessions; those that it has opened go on.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import NamedTuple

from ...settings.files import Reloaded, WatchedFile
from ...telemetry.logs import get_logger
from ..sessions.admission import WRONG_TOKEN, Decided

SHORTEST = 16
"""Characters of a token, below which it is warned about: it can be guessed."""

_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_COMMENT = re.compile(rb"(?:\A|(?<=[ \t]))#.*")


class TokenFileError(Exception):
    """A token file that cannot be used; the text is one line that says what to do."""


class Tokens(NamedTuple):
    """What is in a token file."""

    digests: frozenset[bytes]
    """SHA-256 of each token."""
    short_lines: tuple[int, ...]
    """The lines of those below `SHORTEST`."""


def parse_tokens(data: bytes) -> Tokens:
    """Read tokens, one a line; `#` begins a comment, at a line's start or behind a space.

    Raises `TokenFileError`, which never shows what is in the line: no token at all, or a line
    that is none (RFC 6750, section 2.1).
    """
    digests = set[bytes]()
    short_lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        token = _COMMENT.sub(b"", line.rstrip(b"\r")).strip(b" \t")
        if not token:
            continue
        if not _TOKEN.fullmatch(token):
            raise TokenFileError(
                f"line {number} is no token: one a line, of letters, digits and -._~+/ only,"
                " with = at its end"
            )
        digests.add(_digest(token))
        if len(token) < SHORTEST:
            short_lines.append(number)
    if not digests:
        raise TokenFileError("it holds no token: write at least one, each on a line of its own")
    return Tokens(frozenset(digests), tuple(short_lines))


class TokenFile:
    """The tokens that are good now: an `admission.Authority`."""

    def __init__(self, path: Path) -> None:
        """Raises `TokenFileError` where the file cannot be used."""
        self._path = path
        self._logger = get_logger("pingpong.server.tokens")
        self._file = WatchedFile(path)
        self._tokens = Reloaded(self._file.changed, self._read, TokenFileError, self._log_unusable)
        self._log_loaded()

    @property
    def reload_failed(self) -> bool:
        """Whether the file now cannot be used; what was read before it is then still good."""
        return self._tokens.failed

    def __len__(self) -> int:
        return len(self._tokens.value.digests)

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Decide at once: `admission.Authority`."""
        digest = _digest(token)
        known = False
        # All of them, and each in the same time: how long it takes says nothing of any.
        for one in self._tokens.value.digests:
            known |= hmac.compare_digest(one, digest)
        decided(None if known else WRONG_TOKEN)

    def check(self, now: float) -> None:
        """Read the file again if it has changed; cheap enough for every second.

        `now` is seconds of a clock that never goes back.
        """
        if self._tokens.check(now):
            self._log_loaded()

    def _read(self) -> Tokens:
        try:
            return parse_tokens(self._file.read())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise TokenFileError(
                f"cannot read the token file {self._path}: {reason}; check its path and permissions"
            ) from None
        except TokenFileError as error:
            raise TokenFileError(f"the token file {self._path} cannot be used: {error}") from None

    def _log_loaded(self) -> None:
        self._logger.info("tokens_loaded", count=len(self))
        short_lines = self._tokens.value.short_lines
        if short_lines:
            self._logger.warning(
                "tokens_short",
                lines=list(short_lines),
                warning=f"tokens of less than {SHORTEST} characters can be guessed: make longer"
                " ones (openssl rand -hex 32)",
            )

    def _log_unusable(self, error: str | None) -> None:
        if error is None:
            self._logger.info("token_file_usable")
        else:
            self._logger.error("token_file_unusable", error=error, tokens_kept=len(self))


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
