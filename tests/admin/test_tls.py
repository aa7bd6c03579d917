"""TLS on the admin port."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives import serialization

from pingpong.admin import AdminError
from pingpong.admin.listener import Bounds
from pingpong.settings import ServiceSettings
from tests.admin.asking import ask, connected
from tests.admin.serving import running
from tests.support.certificates import Authority, Pair

Logs = Callable[[], list[dict[str, Any]]]
Run = Callable[[Coroutine[Any, Any, None]], None]


both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""Each has a TLS of its own."""


class Files:
    """A certificate in files, and what trusts its authority."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.pair = Pair(folder / "tls")
        self.pair.write_in_place(self.authority.issue("127.0.0.1"))
        self.context = ssl.create_default_context(cafile=self.authority.file)

    @property
    def settings(self) -> dict[str, Any]:
        return {f"admin_{name}": path for name, path in self.pair.settings.items()}

    async def shown(self, port: int) -> bytes:
        """The certificate that a new connection is shown."""
        async with connected(port, context=self.context) as peer:
            found = peer.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert isinstance(found, bytes)
            return found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_pages_come_over_tls(files: Files, logs: Logs) -> None:
    async with running(**files.settings) as admin:
        answer = await ask(admin.port, "/livez", context=files.context)
        assert (answer.status, answer.text) == (200, "ok\n")
        assert (await ask(admin.port, "/metrics", context=files.context)).status == 200
    [listening] = [event for event in logs() if event["event"] == "admin_listening"]
    assert listening["scheme"] == "https"


async def test_no_tls_below_1_2_and_nothing_in_clear(files: Files, logs: Logs) -> None:
    old = ssl.create_default_context(cafile=files.authority.file)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with running(**files.settings) as admin:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(admin.port, "/livez", context=old)
        async with connected(admin.port) as peer:
            peer.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in await peer.rest()
        assert (await ask(admin.port, "/livez", context=files.context)).status == 200
    assert {event["event"] for event in logs()} == {"admin_listening"}


@both_loops
def test_another_certificate_is_for_new_connections(run: Run, files: Files, logs: Logs) -> None:
    async def scenario() -> None:
        async with running(**files.settings) as admin, connected(
            admin.port, context=files.context
        ) as peer:  # fmt: skip
            before = await files.shown(admin.port)
            other = files.authority.issue("127.0.0.1")
            files.pair.rename_over(other)
            admin.check_files()
            assert (
                before
                != await files.shown(admin.port)
                == other.certificate.public_bytes(serialization.Encoding.DER)
            )
            peer.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await peer.answer()).status == 200

    run(scenario())
    assert "admin_certificate_changed" in [event["event"] for event in logs()]


async def test_what_cannot_be_used_is_kept_out(files: Files, logs: Logs) -> None:
    async with running(**files.settings) as admin:
        before = await files.shown(admin.port)
        foreign = files.authority.issue("127.0.0.1")
        files.pair.settings["tls_key_file"].write_bytes(foreign.key_pem())
        for _ in range(3):
            admin.check_files()
        assert await files.shown(admin.port) == before
        files.pair.write_in_place(foreign)
        admin.check_files()
        assert await files.shown(admin.port) != before
    events = [event["event"] for event in logs()]
    assert events.count("admin_certificate_unusable") == 1
    assert events[-2:] == ["admin_certificate_usable", "admin_certificate_changed"]


async def test_files_that_cannot_be_used_are_an_error_at_the_start(
    files: Files, tmp_path: Path
) -> None:
    key = files.pair.settings["tls_key_file"]
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    for data, reason in (
        (encrypted, "encrypted"),
        (files.authority.issue("127.0.0.1").key_pem(), "key values mismatch"),
        (b"nothing", "cannot be used: not PEM;"),
    ):
        key.write_bytes(data)
        with pytest.raises(AdminError, match=reason) as raised:
            async with running(**files.settings):
                pass
        assert str(key) in str(raised.value)
    key.unlink()
    with pytest.raises(AdminError, match="cannot read"):
        async with running(**files.settings):
            pass


@both_loops
def test_handshakes_that_do_not_end_are_bounded(run: Run, files: Files) -> None:
    """In their number as in their time; and closing waits for none of them."""

    async def scenario() -> None:
        settings = ServiceSettings(admin_host="127.0.0.1", admin_port=0, **files.settings)
        clients = []
        try:
            async with running(settings=settings, bounds=Bounds(connections=4)) as admin:
                for _ in range(20):
                    clients.append(socket.create_connection(("127.0.0.1", admin.port)))
                assert (await ask(admin.port, "/livez", context=files.context)).status == 200
                assert admin.connections <= 4
            async with running(settings=settings, bounds=Bounds(timeout=0.1)) as admin:
                async with connected(admin.port) as peer:
                    peer.send(b"\x16\x03\x01")
                    assert await peer.rest() == b""
                while admin.connections:
                    await asyncio.sleep(0.001)
        finally:
            for client in clients:
                client.close()

    run(scenario())
