"""The `authorization` header of a session's request."""

from __future__ import annotations

from pathlib import Path

from ..link import LinkError
from ..settings.command_line import named
from ..settings.credentials import CredentialsError, read_tokens
from ..settings.files import WatchedFile
from ..webtransport import Headers


def authorization(token_file: Path | None) -> Headers:
    """The header with the token of a file; empty without a file (RFC 6750, section 2.1).

    Raises `LinkError`, whose text never contains the file's content.
    """
    if token_file is None:
        return ()
    try:
        tokens = read_tokens(WatchedFile(token_file).read())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _no_token(f"cannot read the file {token_file}: {reason}") from None
    except CredentialsError as error:
        raise _no_token(f"the file {token_file} cannot be used: {error}") from None
    if len(tokens) > 1:
        raise _no_token(f"the file {token_file} holds {len(tokens)} tokens: keep only one of them")
    return ((b"authorization", b"Bearer " + tokens[0][1]),)


def _no_token(text: str) -> LinkError:
    return LinkError("unauthorized", f"{named('token_file')}: {text}")
