"""Text that a person reads: what came from a peer made printable and short, URLs without secrets.

A peer chooses its close reasons, the names in its certificate and its fields, and DNS the names in
its answers. Raw, they move a terminal's cursor, reorder a line, or fill a screen.
"""

from __future__ import annotations

import re
import unicodedata

MAX_PART = 200
"""Characters that a text of a peer's may take within a sentence."""
MASK = "***"
"""What stands for a secret."""

_MAX_MARKS = 2
"""Combining marks on one character: some scripts need two; more pile up over other lines."""

# Characters that Python calls printable and a terminal leaves empty: fillers, variation selectors.
_EMPTY = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)

_USER = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)[^/]*@")
"""A URL up to the end of its user and password."""


def printable(text: str | bytes, limit: int | None = MAX_PART) -> str:
    r"""A text on one line that only shows what it says, in at most `limit` characters.

    Escaped, as in `\x1b`, are control characters (C1 and line ends too), what is invisible or
    changes the direction of writing, surrogates, bytes that are no UTF-8, and combining marks that
    have no character of this text below them or are too many. A text that is cut ends with an
    ellipsis. What is printable already stays as it is, backslashes too, so that it does no harm to
    do it again. None: no limit.
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
    """A URL as it can be shown: without user and password, query and fragment.

    Each may hold a secret, whatever its name. Of a path alone, the same.
    """
    rest, *fragment = url.split("#", 1)
    rest, *query = rest.split("?", 1)
    shown = _USER.sub(rf"\g<1>{MASK}@", rest, count=1)
    if any(query):
        shown += f"?{MASK}"
    if any(fragment):
        shown += f"#{MASK}"
    return shown
