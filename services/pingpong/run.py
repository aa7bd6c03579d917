"""`pingpong run`: a server, in another process, and a client in one terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from .client.output import Output, terminal
from .client.ping.command import EXIT_ERROR, PingCommand
from .settings import PingSettings, RunSettings

EXIT_INTERRUPTED = 130

_START_SECONDS = 15.0
_END_SECONDS = 5.0
_LEVELS = logging.getLevelNamesMapping()


class ServerFailedError(Exception):
    """The server did not start; the text says why."""


def describe(event: dict[str, Any]) -> str:
    """A server's log event as text."""
    if event["event"] == "listening":
        return f"listening on {event['host']} port {event['port']}, self-signed certificate"
    if event["event"] == "command_suggested":
        return f"from another terminal: {event['command']}"
    if event["event"] == "admin_listening":
        return f"health and metrics at http://{event['host']}:{event['port']}"
    if event["event"] == "stopping":
        return "stopping"
    facts = ", ".join(
        f"{key} {value}"
        for key, value in event.items()
        if key not in ("event", "level", "timestamp", "logger")
    )
    return f"{event['event']}: {facts}" if facts else str(event["event"])


class _Log:
    """Reads a server's log, and shows the events of a level or above."""

    def __init__(self, level: str, output: Output) -> None:
        self.listening: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._threshold = _LEVELS[level.upper()]
        self._output = output

    async def follow(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            text = line.decode(errors="replace").rstrip()
            try:
                event = json.loads(text)
                level = _LEVELS[event["level"].upper()]
                shown = describe(event)
            except (ValueError, KeyError, TypeError):
                self._write(text)
                continue
            if level >= self._threshold:
                self._write(shown)
            if event["event"] == "listening" and not self.listening.done():
                self.listening.set_result(event)
        if not self.listening.done():
            self.listening.set_exception(ServerFailedError("the server ended before it listened"))

    def _write(self, text: str) -> None:
        # The client's own output fails too, and ends both.
        with suppress(OSError):
            self._output.write(text)


@asynccontextmanager
async def _server(level: str, engine: str, output: Output) -> AsyncIterator[dict[str, Any]]:
    """Run a server on a free port of this machine; yields its event `listening`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PINGPONG_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pingpong", "serve", "--bind-host=127.0.0.1", "--bind-port=0"),
        *("--admin-host=127.0.0.1", "--admin-port=0", f"--engine={engine}"),
        # `listening` has the level info.
        *("--log-format=json", f"--log-level={'debug' if level == 'debug' else 'info'}"),
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        # Ctrl-C in the terminal is only for the client, which then stops the server.
        start_new_session=True,
    )
    assert process.stderr is not None
    log = _Log(level, output)
    follower = asyncio.create_task(log.follow(process.stderr))
    try:
        async with asyncio.timeout(_START_SECONDS):
            event = await log.listening
        yield event
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await follower


async def run(settings: RunSettings) -> int:
    """Run both until the client ends, or Ctrl-C. Returns the exit status."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)  # until the client takes them over
    try:
        async with _server(settings.log_level, settings.engine, terminal("server | ")) as event:
            ping = PingSettings(
                targets=(f"https://127.0.0.1:{event['port']}/ping",),
                cert_hash=bytes.fromhex(event["sha256"]),
                count=settings.count,
                interval=settings.interval,
                timeout=settings.timeout,
                size=settings.size,
                mode=settings.mode,
                quiet=settings.quiet,
                engine=settings.engine,
            )
            # No other server will replace this one.
            return await PingCommand(ping, terminal("client | "), reconnect=False).run()
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    except (ServerFailedError, TimeoutError) as error:
        terminal().complain(str(error) or "the server did not start in time")
        return EXIT_ERROR
