"""Bearer tokens from a file, as an authority of admission.

A token that was removed from the file opens no more sessions. Its open sessions continue.
"""

from __future__ import annotations

from pathlib import Path

from ...settings.credentials import CredentialsFile
from ...telemetry.logs import get_logger
from ..sessions.admission import WRONG_TOKEN, Decided


class TokenFile(CredentialsFile):
    """The valid tokens: an `admission.Authority`."""

    def __init__(self, path: Path) -> None:
        """Raises `CredentialsError` if the file cannot be used."""
        super().__init__(path, "token", get_logger("pingpong.server.tokens"))

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Decide immediately: `admission.Authority`."""
        decided(None if self.matches(token) else WRONG_TOKEN)
