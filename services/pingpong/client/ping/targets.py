"""The addresses of a target: as its name leads there, or one of them for good."""

from __future__ import annotations

from dataclasses import dataclass

from ...link import LinkError, Resolved
from ...settings import PingSettings
from ...settings.command_line import named
from ...webtransport import Address
from ...webtransport.asyncio import ConnectError, Target, check_authorities, resolve

_LONGEST_LOOKUP = 1.0
"""Seconds to wait for the system where addresses are known already. It waits half a second for
both families together, before it takes the first that answers."""


def check_ca_file(settings: PingSettings) -> str | None:
    """What is wrong with the file of authorities, if there is one; a sentence for people."""
    try:
        if settings.ca is not None:
            check_authorities(str(settings.ca))
    except ConnectError as error:
        return f"{named('ca')}: {error}"
    return None


class SystemLookup:
    """Looks a target up as the system does, which may know more than DNS: a hosts file, mDNS.

    The system does not say whether a name has no address of one family, or whether that could not
    be found out: those of before still hold, as they do when a lookup fails.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: list[tuple[int, Address]] = []

    async def __call__(self) -> Resolved:
        """The addresses now; where that fails, or takes long, those of before.

        Raises `ConnectError` where there were none.
        """
        try:
            found = await resolve(self._target, _LONGEST_LOOKUP if self._known else None)
        except ConnectError:
            if not self._known:
                raise
            return Resolved(self._target, self._known)
        families = {family for family, _ in found}
        self._known = found + [entry for entry in self._known if entry[0] not in families]
        return Resolved(self._target, self._known)


@dataclass(frozen=True, slots=True)
class OneAddress:
    """One address of a target, whatever its name leads to by now.

    The certificate is verified for the name nevertheless.
    """

    target: Target
    entry: tuple[int, Address]

    async def __call__(self) -> Resolved:
        """That address."""
        return Resolved(self.target, [self.entry])


async def all_addresses(target: Target, timeout: float) -> list[OneAddress] | LinkError:
    """Each address of a target, or why there is none, also after `timeout` seconds."""
    try:
        return [OneAddress(target, entry) for entry in await resolve(target, timeout)]
    except ConnectError as error:
        return LinkError("dns", str(error), error)
