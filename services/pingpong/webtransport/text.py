"""Text for display: text of a peer is made printable and short, and URLs lose their secrets.

A peer chooses its close reasons, header fields and the names in its certificate; name servers
choose the names in their answers. Unescaped, such text could move a terminal's cursor, reorder a
line, or fill the screen.
"""

from __future__ import annotations

import re
import unicodedata

MAX_PART = 200
"""Maximum characters of a peer's text within a sentence."""
MASK = "***"
"""Replaces a secret."""

_MAX_MARKS = 2
"""Combining marks on one character. Some scripts need two; more would cover other lines."""

# Characters that Python calls printable but a terminal does not show: fillers, variation
# selectors.
_EMPTY = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)

_USER = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)[^/]*@")
"""A URL up to the end of its user and password."""


def printable(text: str | bytes, limit: int | None = MAX_PART) -> str:
    r"""Text as one printable line of at most `limit` characters (None: no limit).

    It escapes, as in `\x1b`: control characters (also C1 and line ends), characters that are
    invisible or change the text direction, surrogates, bytes that are not UTF-8, and combining
    marks that have no base character or are too many. A truncated text ends with an ellipsis.
    Printable text stays as it is, also backslashes, so the function is idempotent.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isascii() and text.isprintable() and (limit is None or len(text) <= limit):
        return text
    pieces: list[str] = []
    length = 0
    room_for_marks = 0
    for character in text:
        is_mark = unicodedata.category(character) in ("Mn", "Me")
        if (
            not character.isprintable()
            or _EMPTY.match(character)
            or (is_mark and not room_for_marks)
        ):
            piece = character.encode("unicode_escape").decode()
            room_for_marks = 0
        else:
            piece = character
            room_for_marks = room_for_marks - 1 if is_mark else _MAX_MARKS * (character != " ")
        if limit is not None and length + len(piece) > limit:
            while length >= limit:
                length -= len(pieces.pop())
            pieces.append("…")
            break
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces)


def mask_url(url: str) -> str:
    """A URL, or a path, with user, password, query and fragment masked.

    Each of them may contain a secret.
    """
    rest, *fragment = url.split("#", 1)
    rest, *query = rest.split("?", 1)
    shown = _USER.sub(rf"\g<1>{MASK}@", rest, count=1)
    if any(query):
        shown += f"?{MASK}"
    if any(fragment):
        shown += f"#{MASK}"
    return shown
