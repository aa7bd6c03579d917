"""The pages of documentation, and the code that they show."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("charts/pingpong/*.md")]
}
"""The text of each page by its path."""


def blocks(page: str, language: str) -> list[str]:
    """A page's blocks of code in a language, also those inside a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", PAGES[page], re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


def block(page: str, language: str, containing: str) -> str:
    """A page's first block of code in a language that contains a text."""
    for code in blocks(page, language):
        if containing in code:
            return code
    raise AssertionError(f"{page} has no {language} with {containing!r}")
