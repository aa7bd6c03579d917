"""Short names for targets: what is at least needed to tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit


def labels(urls: Sequence[str]) -> list[str]:
    """Name each URL by its host; where hosts are alike, by the port too, or else by all of it.

    An IPv6 address stands in brackets where a port follows.
    """
    parts = [urlsplit(url) for url in urls]
    names = [part.hostname or "" for part in parts]
    with_port = [part.netloc for part in parts]
    without_scheme = [f"{part.netloc}{part.path}{_query(part.query)}" for part in parts]
    hosts, ports = Counter(names), Counter(with_port)
    return [
        name if hosts[name] == 1 else port if ports[port] == 1 else full
        for name, port, full in zip(names, with_port, without_scheme, strict=True)
    ]


def _query(query: str) -> str:
    return f"?{query}" if query else ""
