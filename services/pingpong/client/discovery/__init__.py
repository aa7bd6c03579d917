"""Finding the servers to ping: by DNS, in Kubernetes, or as they were given.

A source is one entry of `PINGPONG_TARGETS`. What it leads to now are its endpoints, and what is to
be pinged there are destinations, under names that stay. Whatever happens to a lookup, what was
last known to be right stays in use::

    lookups         what is known of a source, and when to ask again (pure)
    destinations    sources read from text; endpoints made into named destinations (pure)
    addresses       which addresses can be used, and in what order
    resolver        asks DNS; hosts: what this system knows besides DNS
    endpointslices  reads Kubernetes' objects (pure); watch: follows them
    discovery       all of it at work

dnspython and kubernetes are imported when a source needs them.
"""

from .destinations import Destination
from .discovery import Discovery, SourceState
from .lookups import Result

__all__ = ["Destination", "Discovery", "Result", "SourceState"]
