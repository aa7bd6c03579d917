"""Looks names up as this host is configured: hosts file, DNS with search list, system resolver."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...webtransport import ascii_host
from .addresses import normalize
from .hosts import LOOPBACK, HostsFile, SystemLookups, is_localhost
from .lookups import BOTH, Answer, DiscoveryError, Endpoint, Result

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.name
    import dns.resolver

DNS_PORT = 53

_TRY = 1.0
"""Seconds until a query is retried, or sent to the next name server."""
_LIFETIME = 4.0
"""Maximum seconds for one query."""
_LOOKUP = 10.0
"""Maximum seconds for a lookup: a query for each entry of the search list, and more for SRV."""
_SECOND_FAMILY = 1.0
"""Seconds to wait for the other IP version's addresses once the first has answered."""
_REMEMBERED = 300.0
"""Seconds for which the entry of the search list that had the name is tried first."""
_HOSTS_AT_ONCE = 16
"""Hosts of an SRV record that are looked up in parallel."""

_VERSIONS = {"AAAA": 6, "A": 4}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """The addresses of a host: IPv6 first, each family in the order of the name server.

    `ttl` is in seconds, or None; `missing` are the IP versions that could not be looked up.
    """

    addresses: tuple[str, ...]
    ttl: float | None = None
    missing: frozenset[int] = frozenset()


class Resolver:
    """Looks up hosts and SRV records, without a cache.

    It reloads `resolv_conf` when it changes. `port` is the port of the name servers.
    """

    def __init__(
        self,
        *,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        port: int = DNS_PORT,
        hosts: HostsFile | None = None,
        system: SystemLookups | None = None,
    ) -> None:
        self._resolv_conf = resolv_conf
        self._port = port
        self._hosts = hosts or HostsFile()
        self._system = system or SystemLookups()
        self._dns: dns.asyncresolver.Resolver | None = None
        self._status: tuple[int, ...] = ()
        self._found_at: dict[str, tuple[dns.name.Name, float]] = {}

    async def addresses(self, name: str) -> HostAddresses:
        """Look up a host. The search list is not used for a name that ends with a dot.

        Raises `DiscoveryError`, also if there is no address.
        """
        if found := self._hosts.addresses(name):
            return HostAddresses(found)
        if is_localhost(name):
            return HostAddresses(LOOPBACK)
        try:
            async with asyncio.timeout(_LOOKUP):
                return await self._search(name, self._ask_addresses)
        except TimeoutError:
            raise _no_answer(name) from None
        except DiscoveryError as failure:
            unknown = failure.result in (Result.NXDOMAIN, Result.EMPTY)
            if not unknown or not self._system.knows_more:
                raise
            if found := await self._system.addresses(name, _LIFETIME):
                return HostAddresses(found)
            raise

    async def services(self, name: str) -> Answer:
        """Look up an SRV record and its hosts, ordered by priority and weight.

        A host whose lookup fails has no addresses, and both IP versions are missing. Raises
        `DiscoveryError`.
        """
        try:
            async with asyncio.timeout(_LOOKUP):
                return await self._search(name, self._ask_services)
        except TimeoutError:
            raise _no_answer(name) from None

    async def _ask_addresses(self, name: dns.name.Name) -> HostAddresses:
        """Query both families in parallel. The first to answer waits only briefly for the
        other."""
        queries = {
            asyncio.create_task(self._try_query(name, rdtype)): version
            for rdtype, version in _VERSIONS.items()
        }
        try:
            done, waiting = await asyncio.wait(queries, return_when=asyncio.FIRST_COMPLETED)
            if waiting:
                is_found = any(_has_records(query.result()) for query in done)
                await asyncio.wait(waiting, timeout=_SECOND_FAMILY if is_found else None)
        finally:
            for query in queries:
                query.cancel()
        addresses: list[str] = []
        ttls: list[float] = []
        failures: dict[int, DiscoveryError] = {}
        for query, version in queries.items():
            answer = query.result() if query.done() else _no_answer(name)
            if isinstance(answer, DiscoveryError):
                failures[version] = answer
            elif _has_records(answer):
                addresses += (record.address for record in answer)
                ttls.append(answer.chaining_result.minimum_ttl)
        unknown = {v: f for v, f in failures.items() if f.result is not Result.NXDOMAIN}
        if found := normalize(addresses):
            return HostAddresses(found, min(ttls), frozenset(unknown))
        # NXDOMAIN of one family is valid for both.
        for failure in sorted(failures.values(), key=lambda f: f.result is not Result.NXDOMAIN):
            raise failure
        raise DiscoveryError(Result.EMPTY, f"{_text(name)} has no address")

    async def _ask_services(self, name: dns.name.Name) -> Answer:
        answer = await self._query(name, "SRV")
        records = sorted(answer, key=lambda r: (r.priority, -r.weight, r.target, r.port))
        records = [record for record in records if _text(record.target)]  # ".": not offered here
        if not records:
            raise DiscoveryError(Result.EMPTY, f"{_text(name)} has no SRV record")
        problem = None
        for record in list(records):
            if not _is_host(record.target):
                # DNS names may have any bytes. A slash would begin the path of the URL.
                text = f"the SRV record {_text(name)} leads to {_text(record.target)!r}, no host"
                problem = DiscoveryError(Result.ERROR, text)
                records.remove(record)
        if not records and problem is not None:
            raise problem
        additional = _additional_addresses(answer.response)
        turn = asyncio.Semaphore(_HOSTS_AT_ONCE)

        async def look_up(target: dns.name.Name) -> HostAddresses | DiscoveryError:
            if target in additional:
                return additional[target]
            try:
                async with turn:
                    return await self.addresses(f"{_text(target)}.")
            except DiscoveryError as failure:
                return failure

        targets = list(dict.fromkeys(record.target for record in records))
        hosts = dict(zip(targets, await asyncio.gather(*map(look_up, targets)), strict=True))
        ttls: list[float] = [answer.chaining_result.minimum_ttl]
        endpoints: dict[tuple[str, int, str | None], Endpoint] = {}
        for record in records:
            host = hosts[record.target]
            if isinstance(host, DiscoveryError):
                problem = problem or host
                host = HostAddresses((), missing=BOTH)
            if host.ttl is not None:
                ttls.append(host.ttl)
            endpoint = Endpoint(
                _text(record.target), record.port, host.addresses, missing=host.missing
            )
            endpoints.setdefault(endpoint.key, endpoint)
        return Answer(tuple(endpoints.values()), min(ttls), problem)

    async def _search(self, name: str, ask: Callable[[dns.name.Name], Awaitable[T]]) -> T:
        """Query a name with the search list, as the system's resolver does.

        The entry that last had the name is tried first: with Kubernetes' `ndots:5` and five
        domains, most queries would otherwise fail.
        """
        candidates = self._candidates(name, self._resolver())
        remembered, until = self._found_at.get(name, (candidates[0], 0.0))
        if time.monotonic() < until and remembered in candidates:
            try:
                return await ask(remembered)
            except DiscoveryError as failure:
                if failure.result not in (Result.NXDOMAIN, Result.EMPTY):
                    # The name may still exist there. Do not use the same name in another domain.
                    raise
        failures: dict[Result, DiscoveryError] = {}
        for candidate in candidates:
            try:
                found = await ask(candidate)
            except DiscoveryError as failure:
                failures.setdefault(failure.result, failure)
                if failure.result in (Result.TIMEOUT, Result.ERROR):
                    break
                continue
            if len(candidates) > 1:
                self._found_at[name] = (candidate, time.monotonic() + _REMEMBERED)
            return found
        # Raise the most relevant failure: NXDOMAIN only if all candidates have it.
        order = (Result.TIMEOUT, Result.ERROR, Result.SERVFAIL, Result.EMPTY, Result.NXDOMAIN)
        nearest = next(failures[result] for result in order if result in failures)
        if nearest.result is Result.NXDOMAIN and len(candidates) > 1:
            raise DiscoveryError(
                Result.NXDOMAIN, f"{name} does not exist, nor in any domain of the search list"
            )
        raise nearest

    def _candidates(self, name: str, resolver: dns.asyncresolver.Resolver) -> list[dns.name.Name]:
        import dns.exception
        import dns.name

        try:
            relative = dns.name.from_text(name, None)
            if relative.is_absolute():
                return [relative]
            absolute = relative.concatenate(dns.name.root)
        except dns.exception.DNSException:
            raise DiscoveryError(Result.ERROR, f"{name} is not a valid DNS name") from None
        search = resolver.search or [resolver.domain]
        candidates = []
        for domain in search:
            try:
                candidates.append(relative.concatenate(domain))
            except dns.name.NameTooLong:
                continue
        ndots = 1 if resolver.ndots is None else resolver.ndots
        first = 0 if name.count(".") >= ndots else len(candidates)
        candidates.insert(first, absolute)
        return list(dict.fromkeys(candidates))

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Dnspython's resolver, with the current configuration of the system."""
        import dns.asyncresolver
        import dns.exception

        try:
            found = os.stat(self._resolv_conf)
            status = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if self._dns is None or status != self._status:
                self._dns = dns.asyncresolver.Resolver(str(self._resolv_conf))
                self._status = status
                self._found_at.clear()
        except (OSError, ValueError, dns.exception.DNSException):
            raise DiscoveryError(Result.ERROR, f"no name server in {self._resolv_conf}") from None
        self._dns.port = self._port
        self._dns.timeout = min(self._dns.timeout, _TRY)
        return self._dns

    async def _query(self, name: dns.name.Name, rdtype: str) -> dns.resolver.Answer:
        """Send one query. Raises `DiscoveryError`, but not for an answer without records."""
        answer = await self._try_query(name, rdtype)
        if isinstance(answer, DiscoveryError):
            raise answer
        return answer

    async def _try_query(
        self, name: dns.name.Name, rdtype: str
    ) -> dns.resolver.Answer | DiscoveryError:
        import dns.exception
        import dns.resolver

        try:
            return await self._resolver().resolve(
                name, rdtype, search=False, raise_on_no_answer=False, lifetime=_LIFETIME
            )
        except DiscoveryError as failure:
            return failure
        except dns.resolver.NXDOMAIN:
            return DiscoveryError(Result.NXDOMAIN, f"{_text(name)} does not exist")
        except dns.resolver.LifetimeTimeout:
            return _no_answer(name)
        except dns.resolver.NoNameservers as error:
            return _refused(name, error.kwargs["errors"])
        except (dns.exception.DNSException, OSError, EOFError) as error:
            text = str(error).partition("\n")[0] or type(error).__name__
            return DiscoveryError(Result.ERROR, f"{_text(name)}: {text}")


def _is_host(name: dns.name.Name) -> bool:
    try:
        ascii_host(_text(name))
    except ValueError:
        return False
    return True


def _has_records(answer: dns.resolver.Answer | DiscoveryError) -> bool:
    return not isinstance(answer, DiscoveryError) and bool(answer.rrset)


def _additional_addresses(response: Any) -> dict[dns.name.Name, HostAddresses]:
    """Addresses of an SRV record's hosts in the additional section (RFC 2782)."""
    import dns.rdatatype

    found: dict[dns.name.Name, list[Any]] = {}
    for rrset in response.additional:
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            found.setdefault(rrset.name, []).append(rrset)
    return {
        name: HostAddresses(
            normalize(record.address for rrset in rrsets for record in rrset),
            min(rrset.ttl for rrset in rrsets),
        )
        for name, rrsets in found.items()
    }


def _no_answer(name: dns.name.Name | str) -> DiscoveryError:
    return DiscoveryError(Result.TIMEOUT, f"no answer from the name servers for {_text(name)}")


def _refused(name: dns.name.Name, errors: Iterable[tuple[Any, ...]]) -> DiscoveryError:
    """The error of the name servers, or why none could be reached."""
    causes = []
    for server, _, _, error, response in errors:
        address = server.partition(":")[2].partition("@")[0]
        if response is not None:
            text = f"the name server {address} answered {error} for {_text(name)}"
            return DiscoveryError(Result.SERVFAIL, text)
        text = getattr(error, "strerror", None) or type(error).__name__
        causes.append(f"no answer from the name server {address} for {_text(name)}: {text}")
    return DiscoveryError(
        Result.ERROR, causes[-1] if causes else f"no name server for {_text(name)}"
    )


def _text(name: dns.name.Name | str) -> str:
    """A name without its final dot; empty for the root."""
    return str(name).removesuffix(".").lower()
