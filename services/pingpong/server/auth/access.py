"""Admission as the settings choose it: without tokens, by a token file, or by the cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...settings import ServeSettings
from ...settings.command_line import named
from ...settings.credentials import CredentialsError
from .. import ServeError
from ..sessions.admission import Admission
from ..sessions.handlers import PATHS
from .tokens import TokenFile

if TYPE_CHECKING:
    from .token_review import TokenReviewer


class Access:
    """Admission, and what has to be kept up to date for it."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises `ServeError` where the token file cannot be used."""
        self._file: TokenFile | None = None
        self._reviewer: TokenReviewer | None = None
        if settings.auth == "token" and settings.token_file is not None:
            try:
                self._file = TokenFile(settings.token_file)
            except CredentialsError as error:
                raise ServeError(f"{named('token_file')}: {error}") from error
        elif settings.auth == "kubernetes":
            # It imports kubernetes, which is large.
            from .token_review import TokenReviewer

            self._reviewer = TokenReviewer(settings.token_audience)
        self.admission = Admission(
            PATHS,
            allowed_origins=settings.allowed_origins,
            authority=self._file or self._reviewer,
        )

    @property
    def token_reload_failed(self) -> bool:
        """Whether the token file now holds what cannot be used."""
        return self._file is not None and self._file.reload_failed

    async def start(self) -> None:
        """Get ready to verify tokens. Raises `ServeError` where there is no cluster to ask."""
        if self._reviewer is not None:
            await self._reviewer.start()

    def check(self) -> None:
        """Read the token file again if it has changed."""
        if self._file is not None:
            self._file.check(time.monotonic())

    async def close(self) -> None:
        """Verify no more tokens."""
        if self._reviewer is not None:
            await self._reviewer.close()
