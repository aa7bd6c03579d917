"""The numbers that tests measure, to be printed when all of them are over."""

from __future__ import annotations

from collections.abc import Iterator


class Measures:
    """What was measured so far, in the order in which it was."""

    def __init__(self) -> None:
        self._measured: list[tuple[str, str, str]] = []

    def add(self, test: str, name: str, value: object) -> None:
        """Note what `test` measured; a float is taken for seconds."""
        text = f"{value:.2f} s" if isinstance(value, float) else str(value)
        self._measured.append((test, name, text))

    def lines(self) -> Iterator[str]:
        """A line a test, and one for each number."""
        width = max((len(name) for _, name, _ in self._measured), default=0)
        shown = ""
        for test, name, value in self._measured:
            if test != shown:
                shown = test
                yield test
            yield f"  {name:{width}}  {value}"
