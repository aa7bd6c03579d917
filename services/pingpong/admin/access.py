"""Authentication on the admin port: a bearer token (RFC 6750), or user and password (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from ..settings.command_line import named
from ..settings.credentials import CredentialsError, CredentialsFile, Kind
from ..telemetry.logs import get_logger
from .errors import AdminError

_CHALLENGES: dict[Kind, str] = {
    "token": 'Bearer realm="pingpong"',
    "password": 'Basic realm="pingpong", charset="UTF-8"',
}
_ADVICE: dict[Kind, str] = {
    "token": "a token (Authorization: Bearer TOKEN)",
    "password": "user and password (Authorization: Basic, curl --user)",
}


class Access:
    """Checks the credentials of requests; without a file, none are required."""

    def __init__(self, token_file: Path | None, basic_auth_file: Path | None) -> None:
        """Raises `AdminError` if a file cannot be used."""
        self._files: dict[Kind, CredentialsFile] = {}
        paths: dict[Kind, tuple[Path | None, str]] = {
            "token": (token_file, named("admin_token_file")),
            "password": (basic_auth_file, named("admin_basic_auth_file")),
        }
        for kind, (path, option) in paths.items():
            if path is not None:
                try:
                    self._files[kind] = CredentialsFile(path, kind, get_logger("pingpong.admin"))
                except CredentialsError as error:
                    raise AdminError(f"{option}: {error}") from None

    @property
    def is_open(self) -> bool:
        """Whether no authentication is required."""
        return not self._files

    @property
    def challenges(self) -> list[str]:
        """The values of `WWW-Authenticate` headers."""
        return [_CHALLENGES[kind] for kind in self._files]

    @property
    def advice(self) -> str:
        """What to send, for error texts."""
        return " or ".join(_ADVICE[kind] for kind in self._files)

    def allows(self, authorization: str) -> bool:
        """Whether a request with this `Authorization` header has valid credentials."""
        if self.is_open:
            return True
        scheme, _, sent = authorization.partition(" ")
        value = sent.strip(" ").encode("utf-8", "surrogateescape")
        match scheme.lower():
            case "bearer":
                kind: Kind = "token"
            case "basic":
                kind = "password"
                try:
                    value = base64.b64decode(value, validate=True)
                except binascii.Error:
                    return False
            case _:
                return False
        return kind in self._files and self._files[kind].matches(value)

    def check_files(self, now: float) -> None:
        """Read changed files again; `now` is in seconds of a monotonic clock."""
        for file in self._files.values():
            file.check(now)
