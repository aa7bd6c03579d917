"""What is read from files, and read again when they change: what cannot be used is kept out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..telemetry.failure_log import Repeats

T = TypeVar("T")


class Watched(Protocol):
    """`settings.files.WatchedFile` or `WatchedFiles`."""

    def changed(self) -> bool:
        """Whether reading would bring something new, or raise."""


class Reloaded(Generic[T]):
    """The last value that could be used, of files that may change.

    `failed` says whether they now hold something that cannot be used. It becomes true at the
    second look that finds it so, since at the first they may have been in the midst of being
    replaced: a certificate before its key.
    """

    def __init__(
        self,
        files: Watched,
        load: Callable[[], T],
        unusable: type[Exception],
        report: Callable[[str | None], None],
    ) -> None:
        """Raises what `load` raises: `unusable`, whose text says what to do.

        `report` is told that text later: when it changes, and again at most once a minute; and
        None when what it was told of is over.
        """
        self.failed = False
        self._files = files
        self._load = load
        self._unusable = unusable
        self._report = report
        self._failures = 0
        self._repeats = Repeats()
        self.value = load()

    def check(self, now: float) -> bool:
        """Read again what has changed; whether there is another value now.

        Cheap enough for every second. `now` is seconds of a clock that never goes back.
        """
        if not self._failures and not self._files.changed():
            return False
        try:
            value = self._load()
        except self._unusable as error:
            self._failures += 1
            if self._failures > 1:
                self.failed = True
                if self._repeats.failed(None, str(error), now) is not None:
                    self._report(str(error))
            return False
        self._failures = 0
        self.failed = False
        if self._repeats.succeeded(None, now) is not None:
            self._report(None)
        is_new = value != self.value
        self.value = value
        return is_new
