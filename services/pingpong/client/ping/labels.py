"""Short names for targets: what is at least needed to tell them apart, and nothing secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ...webtransport import Url, mask_url


def labels(urls: Sequence[str]) -> list[str]:
    """Name each URL by its host; where hosts are alike, by the port too, or else by all of it.

    An IPv6 address stands in brackets where a port follows. Queries are masked; those that are
    alike then are numbered: `host:4433/ping?***`, `host:4433/ping?***#2`.
    """
    parts = [Url.parse(url) for url in urls]
    names = [part.host for part in parts]
    with_port = [part.authority for part in parts]
    without_scheme = [mask_url(url).partition("://")[2] for url in urls]
    hosts, ports = Counter(names), Counter(with_port)
    return _numbered(
        name if hosts[name] == 1 else port if ports[port] == 1 else full
        for name, port, full in zip(names, with_port, without_scheme, strict=True)
    )


def titles(urls: Iterable[str]) -> list[str]:
    """The URLs as they can be shown, those that are alike then numbered."""
    return _numbered(map(mask_url, urls))


def _numbered(names: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    numbered = []
    for name in names:
        counts[name] += 1
        numbered.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return numbered
