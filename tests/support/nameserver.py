"""A name server on loopback that answers, errs or is silent as a test tells it to.

Real UDP and TCP, in a thread of its own, so that it answers whatever the test does meanwhile::

    with NameServer() as names:
        names.set("pingpong.test", "A", "127.0.0.1", ttl=5)
        Resolver(resolv_conf=names.resolv_conf(tmp_path), port=names.port)

A process reads its name server's port nowhere: for it, listen on port 53 (in a network namespace,
or as root on another loopback address), and give it the file that `resolv_conf` wrote.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

UDP_SIZE = 512
NEGATIVE_TTL = 5

_SOA = "ns.test. admin.test. 1 3600 600 86400 5"


@dataclass(frozen=True)
class Records:
    texts: tuple[str, ...]
    ttl: int


@dataclass(frozen=True)
class Query:
    name: str
    rdtype: str
    is_tcp: bool


class NameServer:
    """What it isn't told of does not exist. Names are absolute, with or without their last dot."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.queries: list[Query] = []
        """All that it was asked, answered or not."""
        self.adds_addresses = True
        """Whether it adds the addresses of the hosts in an SRV record."""
        self.truncates = False
        """Whether every answer over UDP says to ask over TCP."""
        self._host = host
        self._records: dict[tuple[str, str], Records] = {}
        self._rcodes: dict[tuple[str, str], str] = {}
        self._silent: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._udp = socket.socket(_family(host), socket.SOCK_DGRAM)
        self._tcp = socket.socket(_family(host), socket.SOCK_STREAM)
        self._wake, self._woken = socket.socketpair()
        try:
            self._bind(port)
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._serve, name="nameserver", daemon=True)

    def set(self, name: str, rdtype: str, *texts: str, ttl: int = 30) -> None:
        """Have these records, as in a zone file, and no others of that type."""
        with self._lock:
            self._records[_key(name, rdtype)] = Records(texts, ttl)

    def remove(self, name: str, rdtype: str = "*") -> None:
        """Forget all that was said of a name, or its records of a type."""
        with self._lock:
            for table in (self._records, self._rcodes):
                for key in [k for k in table if k[0] == _key(name)[0] and rdtype in ("*", k[1])]:
                    del table[key]
            self._silent -= {k for k in self._silent if k[0] == _key(name)[0]}

    def fail(self, name: str, rcode: str, rdtype: str = "*") -> None:
        """Answer with SERVFAIL, REFUSED, NXDOMAIN and so on, whatever records there are."""
        with self._lock:
            self._rcodes[_key(name, rdtype)] = rcode

    def silence(self, name: str = "*", rdtype: str = "*") -> None:
        """Answer nothing; without a name, to nobody."""
        with self._lock:
            self._silent.add(_key(name, rdtype))

    def restore(self) -> None:
        """Answer again, and without errors."""
        with self._lock:
            self._rcodes.clear()
            self._silent.clear()

    def asked(self, name: str, rdtype: str | None = None) -> int:
        """How many questions there were for a name."""
        wanted = _key(name)[0]
        return sum(q.name == wanted and rdtype in (None, q.rdtype) for q in list(self.queries))

    def resolv_conf(self, folder: Path, *lines: str) -> Path:
        """Write a resolv.conf that has this server, and these lines."""
        path = folder / "resolv.conf"
        path.write_text("\n".join([f"nameserver {self._host}", *lines, ""]))
        return path

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._wake.send(b"!")
        self._thread.join()
        self._close()

    def _bind(self, port: int) -> None:
        for attempt in range(16):
            self._udp.bind((self._host, port))
            self.port = int(self._udp.getsockname()[1])
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._tcp.bind((self._host, self.port))
                break
            except OSError:  # somebody else's TCP port, by chance
                if port or attempt == 15:
                    raise
                self._udp.close()
                self._udp = socket.socket(_family(self._host), socket.SOCK_DGRAM)
        self._tcp.listen()

    def _close(self) -> None:
        for sock in (self._udp, self._tcp, self._wake, self._woken):
            sock.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._woken):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self._udp:
                        self._answer_udp()
                    else:
                        with contextlib.suppress(OSError, struct.error):
                            self._answer_tcp()

    def _answer_udp(self) -> None:
        wire, address = self._udp.recvfrom(65_535)
        query = dns.message.from_wire(wire)
        response = self._response(query, is_tcp=False)
        if response is None:
            return
        try:
            wire = response.to_wire(max_size=max(UDP_SIZE, query.payload))
            truncated = self.truncates
        except dns.exception.TooBig:
            truncated = True
        if truncated:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        self._udp.sendto(wire, address)

    def _answer_tcp(self) -> None:
        connection, _ = self._tcp.accept()
        with connection:
            connection.settimeout(5)
            with connection.makefile("rb") as file:
                (size,) = struct.unpack("!H", file.read(2))
                query = dns.message.from_wire(file.read(size))
            response = self._response(query, is_tcp=True)
            if response is not None:
                connection.sendall(response.to_wire(prepend_length=True))

    def _response(self, query: dns.message.Message, *, is_tcp: bool) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text().lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(name, rdtype, is_tcp))
        with self._lock:
            keys = {(name, rdtype), (name, "*"), ("*.", "*"), ("*.", rdtype)}
            if keys & self._silent:
                return None
            response = dns.message.make_response(query)
            response.flags |= dns.flags.RA
            rcodes = [self._rcodes[key] for key in keys if key in self._rcodes]
            if rcodes:
                response.set_rcode(dns.rcode.from_text(rcodes[0]))
            else:
                self._fill(response, name, rdtype)
        return response

    def _fill(self, response: dns.message.Message, name: str, rdtype: str) -> None:
        while rdtype != "CNAME" and (alias := self._records.get((name, "CNAME"))):
            response.answer += _rrsets(name, "CNAME", alias)
            name = _key(alias.texts[0])[0]
        records = self._records.get((name, rdtype))
        if records is not None and records.texts:
            response.answer += _rrsets(name, rdtype, records)
            if rdtype == "SRV" and self.adds_addresses:
                response.additional += self._additional(records.texts)
            return
        if not any(known == name for known, _ in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority += _rrsets("test.", "SOA", Records((_SOA,), NEGATIVE_TTL))

    def _additional(self, texts: Iterable[str]) -> list[dns.rrset.RRset]:
        targets = dict.fromkeys(_key(text.split()[-1])[0] for text in texts)
        return [
            rrset
            for target in targets
            for rdtype in ("A", "AAAA")
            if (records := self._records.get((target, rdtype))) is not None
            for rrset in _rrsets(target, rdtype, records)
        ]


def _rrsets(name: str, rdtype: str, records: Records) -> list[dns.rrset.RRset]:
    # One for each record: dnspython would shuffle what is together.
    return [dns.rrset.from_text(name, records.ttl, "IN", rdtype, text) for text in records.texts]


def _key(name: str, rdtype: str = "*") -> tuple[str, str]:
    return name.removesuffix(".").lower() + ".", rdtype


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
