"""A measured process: a server or a client of one kind, controlled by lines of JSON.

It reads commands from standard input, and answers each with a line on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from pingpong.telemetry.logs import configure

from .clients import Clients
from .measures import cpu_time, resident_memory
from .servers import SERVERS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("server", "client"))
    parser.add_argument("kind", choices=sorted(SERVERS))
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--max-sessions", type=int, default=16)
    parser.add_argument("--engine", default="auto")
    return parser.parse_args()


class Worker:
    """Runs the commands."""

    def __init__(self, clients: Clients | None) -> None:
        self._clients = clients

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command, and measure it. Times are in nanoseconds, memory in bytes."""
        name = command.pop("do")
        if name == "memory":
            return {"memory": resident_memory()}
        if name == "cpu":
            return {"cpu": cpu_time()}
        if name == "pin":
            os.sched_setaffinity(0, {command["cpu"]})
            return {}
        assert self._clients is not None
        if name == "target":
            self._clients.port = command["port"]
            return {}
        lost = self._clients.lost
        cpu, wall = cpu_time(), time.perf_counter_ns()
        if name == "ping":
            await self._clients.ping(**command)
        elif name == "connect":
            await self._clients.connect(**command)
        elif name == "sessions":
            await self._clients.add_sessions(**command)
        else:
            raise ValueError(name)
        return {
            "cpu": cpu_time() - cpu,
            "wall": time.perf_counter_ns() - wall,
            "lost": self._clients.lost - lost,
        }


async def main() -> None:
    arguments = _arguments()
    configure("warning")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients: Clients | None = None
    kept: object = None
    port = 0
    if arguments.role == "server":
        serve = SERVERS[arguments.kind]
        port, kept = await serve(arguments.certificate, arguments.max_sessions, arguments.engine)
    else:
        clients = Clients(arguments.kind)
    worker = Worker(clients)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps({"port": port}), flush=True)
    async for line in reader:
        print(json.dumps(await worker.do(json.loads(line))), flush=True)
    # Exit without closing the connections, which would wait for idle timeouts.
    del kept
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
