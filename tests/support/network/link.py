"""A network of two hosts, joined by a link that does to packets what it is told.

    with Link(seed=1) as link:
        link.impair(out=Impairment(delay=0.05, loss=0.1))
        ...  # run something in link.server and link.client
        link.records()

Each host is a network namespace with a TUN device; between the two devices a process forwards
packets and writes down what it did to each. Nothing outside the namespaces is touched. It needs
root, /dev/net/tun and `ip`: see `namespaces.unavailable`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.running import wait_until

from .forwarder import DEVICE
from .namespaces import Namespace
from .path import Impairment, Verdict
from .records import Direction, Record, unpack

__all__ = [
    "CLIENT",
    "CLIENT6",
    "DEVICE",
    "OTHER",
    "OTHER6",
    "SERVER",
    "SERVER6",
    "Direction",
    "Impairment",
    "Link",
    "Verdict",
]

CLIENT, SERVER = "192.0.2.1", "192.0.2.2"  # RFC 5737
CLIENT6, SERVER6 = "2001:db8::1", "2001:db8::2"  # RFC 3849
OTHER, OTHER6 = "192.0.2.77", "2001:db8::77"
"""Where the client may move to."""

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0


class Link:
    """Two namespaces, `client` and `server`, and what is between them.

    Both have an IPv4 and an IPv6 address. The same seed gives each flow the same luck.
    """

    def __init__(self, *, seed: int = 0, mtu: int = 1500) -> None:
        self.client: Namespace
        self.server: Namespace
        self.forwarder: subprocess.Popen[bytes]
        self._seed = seed
        self._mtu = mtu
        self._now = {direction: Impairment() for direction in Direction}
        self._stack = contextlib.ExitStack()
        self._control: socket.socket
        self._log: int
        self._read = 0
        self._records: list[Record] = []

    def __enter__(self) -> Link:
        with contextlib.ExitStack() as stack:
            self.client = stack.enter_context(Namespace("client"))
            self.server = stack.enter_context(Namespace("server"))
            self._start(stack)
            self._configure(self.client, CLIENT, CLIENT6)
            self._configure(self.server, SERVER, SERVER6)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        self._log = os.memfd_create("link")
        stack.callback(os.close, self._log)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE)
        fds = (theirs.fileno(), self._log)
        with theirs:
            self.forwarder = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.support.network.forwarder"),
                    *map(str, (*fds, self._seed, self.client.path, self.server.path)),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
            )
        stack.callback(self.forwarder.wait, PATIENCE)
        self._control = stack.enter_context(ours)
        if not ours.recv(1 << 16):
            raise RuntimeError("the link's forwarder did not start: see what it wrote to stderr")

    def _configure(self, namespace: Namespace, address: str, address6: str) -> None:
        # No packets of the kernel's own, and addresses that can be used at once.
        namespace.sysctl(f"ipv6/conf/{DEVICE}/addr_gen_mode", 1)
        namespace.sysctl(f"ipv6/conf/{DEVICE}/router_solicitations", 0)
        namespace.ip("link", "set", DEVICE, "mtu", str(self._mtu), "up")
        for each in (address, address6):
            self.add_address(namespace, each)

    # What it is told.

    def impair(
        self,
        both: Impairment | None = None,
        *,
        out: Impairment | None = None,
        back: Impairment | None = None,
    ) -> float:
        """Do this to packets from now on; a direction that isn't named stays as it is.

        Returns when, as time.monotonic() has it, as do all that change something.
        """
        wanted = {Direction.OUT: out or both, Direction.BACK: back or both}
        order = {}
        for direction, impairment in wanted.items():
            if impairment is not None:
                self._now[direction] = impairment
                order[direction.name] = dataclasses.asdict(impairment)
        return self._order(**order)

    def blackhole(self) -> float:
        """Let nothing through, either way."""
        return self._set_blackhole(True)

    def heal(self) -> float:
        """End the blackhole."""
        return self._set_blackhole(False)

    def _set_blackhole(self, blackhole: bool) -> float:
        out, back = (dataclasses.replace(self._now[d], blackhole=blackhole) for d in Direction)
        return self.impair(out=out, back=back)

    def rebind(self, address: str) -> float:
        """Have the client's UDP packets come from this address and new ports, as a NAT may.

        What is sent to where they came from before finds nobody.
        """
        return self._order(rebind=address)

    def add_address(self, namespace: Namespace, address: str) -> None:
        """Give an end one more address; those of 192.0.2.0/24 and 2001:db8::/64 lead to it."""
        prefix, *nodad = (64, "nodad") if ":" in address else (24,)
        namespace.ip("address", "add", f"{address}/{prefix}", "dev", DEVICE, *map(str, nodad))
        if ":" in address:
            # The kernel takes packets to it only some time after the command has ended.
            wait_until(lambda: namespace.receives(address), f"{address} can be used")

    def move_client(self, before: str, after: str) -> float:
        """Take an address of the client's away and give it another, as a new network would."""
        prefix = 64 if ":" in before else 24
        self.client.ip("address", "delete", f"{before}/{prefix}", "dev", DEVICE)
        self.add_address(self.client, after)
        return time.monotonic()

    # What it says.

    def records(self) -> list[Record]:
        """What became of all packets so far, without those that are on their way.

        In the order in which they came to the link.
        """
        self._flush()
        return sorted(self._records)

    def settle(self) -> list[Record]:
        """Wait until nothing is on its way; then as `records`."""
        wait_until(lambda: self._flush()["in_flight"] == 0, "nothing is on its way")
        return sorted(self._records)

    def _flush(self) -> dict[str, Any]:
        answer = self._ask(flush=True)
        data = os.pread(self._log, os.fstat(self._log).st_size - self._read, self._read)
        self._read += len(data)
        self._records.extend(unpack(data))
        return answer

    def _order(self, **order: Any) -> float:
        return float(self._ask(**order)["at"]) / 1e9

    def _ask(self, **order: Any) -> dict[str, Any]:
        self._control.send(json.dumps(order).encode())
        answer: dict[str, Any] = json.loads(self._control.recv(1 << 16))
        return answer
