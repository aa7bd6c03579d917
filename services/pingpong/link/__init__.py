"""The link engine: keeps a session with a target, sends probes on a schedule, tracks answers.

    class Show(Observer):
        def answered(self, answer, size, is_first):
            print(answer.seq, answer.rtt_ns / 1e6, "ms")

        def down(self, cause):
            print("down:", cause)

        def up(self, peer, outage):
            print("up:", peer.address, "" if outage is None else outage.duration_ns / 1e9)

    async def measure(url):
        target = Target.from_url(url)
        options = LinkOptions(interval=0.2, count=50)
        link = Link(url, system_lookup(target), Dialer(), Show(), options)
        try:
            await link.run()
        finally:
            await link.close()
        print(link.summary(time.monotonic_ns()))

`dial` opens sessions, `session` is one, `reconnect` decides when to open another, `link` does it.
"""

from .availability import Outage
from .dial import Dialer, Lookup, Resolved, system_lookup
from .failures import CONNECT_RESULTS, LinkError
from .link import Link, LinkOptions, State, Until
from .observer import ConnectTimes, Observer, Peer
from .reconnect import Backoff
from .session import CLOSE_REASONS, IDLE_TIMEOUT, describe_end

__all__ = [
    "CLOSE_REASONS",
    "CONNECT_RESULTS",
    "IDLE_TIMEOUT",
    "Backoff",
    "ConnectTimes",
    "Dialer",
    "Link",
    "LinkError",
    "LinkOptions",
    "Lookup",
    "Observer",
    "Outage",
    "Peer",
    "Resolved",
    "State",
    "Until",
    "describe_end",
    "system_lookup",
]
