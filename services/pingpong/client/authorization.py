"""The header that shows a server who asks."""

from __future__ import annotations

import re
from pathlib import Path

from ..link import LinkError
from ..settings.files import WatchedFile
from ..webtransport import Headers

_TOKEN = re.compile(rb"[\x21-\x7e]+")


def authorization(token_file: Path | None) -> Headers:
    """The header that shows the token in a file; none without a file (RFC 6750, section 2.1).

    Raises `LinkError`, which says nothing of what is in the file.
    """
    if token_file is None:
        return ()
    try:
        token = WatchedFile(token_file).read().strip()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _no_token(f"cannot read the file {token_file}: {reason}") from None
    if not token:
        raise _no_token(f"no token is in {token_file}: it is empty")
    if not _TOKEN.fullmatch(token):
        raise _no_token(f"no token is in {token_file}: that is one word of printable ASCII")
    return ((b"authorization", b"Bearer " + token),)


def _no_token(text: str) -> LinkError:
    return LinkError("unauthorized", f"{text} (--token-file)")
