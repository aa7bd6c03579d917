"""Parses the sources of the settings, and makes destinations of their endpoints. Pure.

A destination's name is a label of metrics, so it depends only on the setting and on the endpoint's
name, not on the order of answers:

=========================  =================================  ==================================
source                     a target for each name             a target for each address
=========================  =================================  ==================================
``https://host:4433/ping`` ``host:4433``                      ``host:4433[10.0.0.7]``
``https://10.0.0.7:4433``  ``10.0.0.7:4433``                  ``10.0.0.7:4433``
``srv://_s._udp.name``     ``host:port`` of each record       ``host:port[10.0.0.7]``
``endpointslice://ns/svc`` ``ns/svc``                         the pod's name, or ``ns/svc[pod]``
                                                              with several such sources
=========================  =================================  ==================================

A path other than `/` and `/ping` follows the port or the service. A query does not, since it may
be a secret. Sources that differ only in the query, and could have targets of the same name, are
numbered: `host:4433` and `host:4433#2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from ...settings.values import DEFAULT_PATH, ENDPOINT_SLICE, SRV
from ...webtransport import Url, bracketed
from .addresses import interleave_families, is_address
from .lookups import Endpoint

Kind = Literal["address", "host", "srv", "endpointslice"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination of pings.

    `name` is the label `target` of the metrics. `url` is the https URL, for the authority, the
    name in the certificate, and the path. `addresses` are the IP addresses to connect to, in this
    order, an IPv6 address with its zone if it has one. Without any, the URL's host has to be
    resolved.
    """

    name: str
    url: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of `PINGPONG_TARGETS`.

    `name` is what is looked up: a host name or address, the name of an SRV record, or a service.
    `port` is a number, the name of a service's port, or None for the port of the service.
    """

    kind: Kind
    label: str
    name: str
    path: str = DEFAULT_PATH
    port: int | str | None = None
    namespace: str = ""
    number: str = ""
    """A suffix of its targets' names, which distinguishes sources with other queries; part of
    `label`."""

    @property
    def host(self) -> str:
        """The name in the certificate; the targets of an SRV record have their own."""
        if self.kind == "endpointslice":
            return f"{self.name}.{self.namespace}.svc"
        # The final dot is only for DNS: certificates and servers do not use it.
        return self.name.removesuffix(".")


def read_sources(servers: Iterable[str]) -> tuple[Source, ...]:
    """Parse the entries of the setting. Duplicates are merged.

    Raises `ValueError` for an invalid entry.
    """
    found: dict[tuple[str, str], Source] = {}
    numbers: dict[str, dict[str, int]] = {}
    for text in servers:
        source = _read_source(text)
        found.setdefault((source.label, source.path), source)
        paths = numbers.setdefault(_shown(source.path), {})
        paths.setdefault(source.path, len(paths) + 1)
    sources = []
    for source in found.values():
        number = numbers[_shown(source.path)][source.path]
        if number > 1 and any(_may_be_alike(source, other) for other in found.values()):
            source = replace(source, label=f"{source.label}#{number}", number=f"#{number}")
        sources.append(source)
    return tuple(sources)


def _may_be_alike(one: Source, other: Source) -> bool:
    """Whether two sources could have different targets of the same name."""
    if one.path == other.path or _shown(one.path) != _shown(other.path):
        return False
    if one.label == other.label:
        return True
    # The targets of an SRV record are not known yet.
    kinds = {one.kind, other.kind}
    return "srv" in kinds and "endpointslice" not in kinds and "?" in one.path + other.path


def _read_source(text: str) -> Source:
    if match := SRV.fullmatch(text):
        name, path = f"{match['service']}.{match['domain']}", match["path"] or DEFAULT_PATH
        return Source("srv", f"{name}{_shown(path)}", name, path)
    if match := ENDPOINT_SLICE.fullmatch(text):
        namespace, service, wanted = match["namespace"], match["service"], match["port"]
        path = match["path"] or DEFAULT_PATH
        label = f"{namespace}/{service}{f':{wanted}' if wanted else ''}{_shown(path)}"
        port = int(wanted) if wanted and wanted.isdecimal() else wanted
        return Source("endpointslice", label, service, path, port, namespace)
    url = Url.parse(text)
    label = f"{bracketed(url.host.removesuffix('.'))}:{url.port}{_shown(url.path)}"
    kind: Kind = "address" if is_address(url.host) else "host"
    return Source(kind, label, url.host, url.path, url.port)


def destinations(
    source: Source, endpoints: Sequence[Endpoint], *, per_address: bool, is_only_service: bool
) -> Iterator[Destination]:
    """The destinations of a source's endpoints; `is_only_service`: it is the only EndpointSlice
    source.

    With `per_address` they are sorted by name.
    """
    if source.kind == "endpointslice":
        make = _pods if per_address else _ports
        yield from make(source, endpoints, is_only_service)
        return
    for endpoint in endpoints:
        name = source.label
        if source.kind == "srv":
            where = f"{bracketed(endpoint.host)}:{endpoint.port}"
            name = f"{where}{_shown(source.path)}{source.number}"
        url = str(Url(endpoint.host, endpoint.port, source.path))
        if not per_address or source.kind == "address":
            yield Destination(name, url, interleave_families(endpoint.addresses))
            continue
        for address in sorted(endpoint.addresses, key=_by_number):
            yield Destination(f"{name}[{address}]", url, (address,))


def _pods(source: Source, endpoints: Sequence[Endpoint], alone: bool) -> Iterator[Destination]:
    for endpoint in sorted(endpoints, key=lambda e: (e.pod is None, e.pod or "", e.port)):
        url = str(Url(endpoint.host, endpoint.port, source.path))
        if endpoint.pod is not None:
            name = endpoint.pod if alone else f"{source.label}[{endpoint.pod}]"
            yield Destination(name, url, interleave_families(endpoint.addresses))
            continue
        for address in sorted(endpoint.addresses, key=_by_number):
            yield Destination(f"{source.label}[{address}]", url, (address,))


def _ports(source: Source, endpoints: Sequence[Endpoint], alone: bool) -> Iterator[Destination]:
    """A service is one target. While its pods have several ports, each port is a target."""
    ports = sorted({endpoint.port for endpoint in endpoints})
    for port in ports:
        name = source.label if port == ports[0] else f"{source.label}[{port}]"
        addresses = [a for e in endpoints if e.port == port for a in e.addresses]
        yield Destination(
            name, str(Url(source.host, port, source.path)), interleave_families(addresses)
        )


class TargetLimit:
    """Limits the number of targets: admitted targets stay, and new ones need a free place."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left_out = 0
        """The number of targets that were not admitted last time."""
        self._inside: frozenset[str] = frozenset()

    def admit(self, candidates: Iterable[Destination]) -> dict[str, Destination]:
        """Admit targets, by name; of several with the same name, the first."""
        by_name: dict[str, Destination] = {}
        for candidate in candidates:
            by_name.setdefault(candidate.name, candidate)
        stay = [name for name in by_name if name in self._inside]
        come = [name for name in by_name if name not in self._inside]
        self._inside = frozenset((stay + come)[: self.limit])
        self.left_out = len(by_name) - len(self._inside)
        return {name: made for name, made in by_name.items() if name in self._inside}


def _shown(path: str) -> str:
    # The query may be a secret.
    path = path.partition("?")[0]
    return "" if path in ("/", DEFAULT_PATH) else path


def _by_number(address: str) -> tuple[int, IPv4Address | IPv6Address, str]:
    number = ip_address(address.partition("%")[0])
    return number.version, number, address
