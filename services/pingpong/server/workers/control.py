"""The control channel between the server and a worker process: one JSON object a line.

The server sends requests, `{"id": 7, "do": "drain"}`; the worker answers `{"id": 7, "value": …}`
or `{"id": 7, "error": "…"}`. It also reports its health, `{"health": …}`, and its metrics,
`{"families": […]}`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

_MAX_LINE = 64 << 20
_CLOGGED = 1 << 20
"""Unread bytes above which only answers are sent."""


class Channel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Channel:
        """A channel over a connected socket, which it owns."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_MAX_LINE))

    @property
    def is_clogged(self) -> bool:
        """Whether the other end does not read."""
        return self._writer.transport.get_write_buffer_size() > _CLOGGED

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. It is lost if the other end is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """Receive the next message; None when the channel closed."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: Message = json.loads(line)
        return message

    async def close(self) -> None:
        """Close the channel, after the sent messages were passed to the kernel."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
