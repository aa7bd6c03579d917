"""The README, and the code that it shows."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The first block of code in a language that contains a text."""
    for found in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL):
        if containing in found:
            return str(found)
    raise AssertionError(f"no {language} with {containing!r}")
