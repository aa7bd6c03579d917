"""Admission by the settings: without tokens, with a token file, or with the cluster's tokens."""

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
    """Admission, with the source of its tokens."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises `ServeError` if the token file cannot be used."""
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
        """Whether the token file has changed but cannot be used."""
        return self._file is not None and self._file.reload_failed

    async def start(self) -> None:
        """Connect to the cluster, if it verifies tokens. Raises `ServeError` if there is none."""
        if self._reviewer is not None:
            await self._reviewer.start()

    def check(self) -> None:
        """Read the token file again if it has changed."""
        if self._file is not None:
            self._file.check(time.monotonic())

    async def close(self) -> None:
        """Stop verifying tokens."""
        if self._reviewer is not None:
            await self._reviewer.close()
