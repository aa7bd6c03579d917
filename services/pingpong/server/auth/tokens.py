"""Bearer tokens from a file, as an authority of admission.

A token that was taken out of the file opens no more sessions; those that it has opened go on.
"""

from __future__ import annotations

from pathlib import Path

from ...settings.credentials import CredentialsFile
from ...telemetry.logs import get_logger
from ..sessions.admission import WRONG_TOKEN, Decided


class TokenFile(CredentialsFile):
    """The tokens that are good now: an `admission.Authority`."""

    def __init__(self, path: Path) -> None:
        """Raises `CredentialsError` where the file cannot be used."""
        super().__init__(path, "token", get_logger("pingpong.server.tokens"))

    def authorize(self, token: bytes, decided: Decided) -> None:
        """Decide at once: `admission.Authority`."""
        decided(None if self.matches(token) else WRONG_TOKEN)
