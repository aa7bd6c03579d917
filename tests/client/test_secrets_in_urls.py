"""What a URL's query, user or fragment holds may be a secret: the server gets it, nobody else."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from pingpong.server.sessions.handlers import Router
from pingpong.settings import PingSettings, ProbeSettings, SettingsError
from pingpong.webtransport import ConnectionHandler
from pingpong.webtransport.session import Session
from tests.client.ping.commands import ping, serving
from tests.client.probe.probing import settings, until
from tests.client.probe.test_service_probe import running
from tests.webtransport.asyncio.peers import closed_port

SECRETS = ("key=s3cret&x=1", "s3cret", "sig=s3cret%2F=")


class Noting(Router):
    """A server that notes what paths it is asked for."""

    def __init__(self) -> None:
        super().__init__(1 << 16)
        self.paths: list[str] = []

    def session_requested(self, session: Session) -> None:
        self.paths.append(session.request.path)
        super().session_requested(session)


class Refusing(ConnectionHandler):
    """A server that has no such page."""


@pytest.mark.parametrize("query", SECRETS)
@pytest.mark.parametrize("words", [(), ("--json",), ("-D",), ("-q",), ("--all",)])
async def test_ping(query: str, words: tuple[str, ...]) -> None:
    noting = Noting()
    async with serving(noting) as server:
        url = f"https://127.0.0.1:{server.port}/ping?{query}"
        status, said = await ping(0, "-c2", "-i0.01", *words, url)
    assert status == 0
    assert noting.paths == [f"/ping?{query}"]
    assert "s3cret" not in "".join((*said.lines, *said.complaints))
    if words == ("--json",):
        summary = json.loads(said.lines[-1])
        assert summary["url"] == f"https://127.0.0.1:{server.port}/ping?***"
    else:
        assert f"--- https://127.0.0.1:{server.port}/ping?***" in "\n".join(said.lines)


@pytest.mark.parametrize("words", [(), ("--json",)])
async def test_ping_several_that_only_the_query_tells_apart(words: tuple[str, ...]) -> None:
    noting = Noting()
    dead = closed_port()
    async with serving(noting) as server:
        urls = [f"https://127.0.0.1:{server.port}/ping?key=s3cret{number}" for number in (1, 2)]
        gone = [f"https://127.0.0.1:{dead}/ping?key=s3cret{number}" for number in (1, 2)]
        status, said = await ping(0, "-c1", *words, *urls, *gone)
    assert status == 2
    assert sorted(noting.paths) == ["/ping?key=s3cret1", "/ping?key=s3cret2"]
    text = "\n".join((*said.lines, *said.complaints))
    assert "s3cret" not in text
    if words:
        targets = [json.loads(line).get("target") for line in said.lines if "sent" in line]
        one, two = (f"127.0.0.1:{port}/ping?***" for port in (server.port, dead))
        assert targets == [one, f"{one}#2", two, f"{two}#2"]
    else:
        assert f"--- https://127.0.0.1:{server.port}/ping?*** pingpong" in text
        assert f"--- https://127.0.0.1:{server.port}/ping?***#2 pingpong" in text
    begins = {complaint.partition(": ")[0] for complaint in said.complaints}
    shown = f"https://127.0.0.1:{dead}/ping?***"
    assert begins == {shown, f"{shown}#2"}


async def test_ping_that_is_refused() -> None:
    async with serving(Refusing()) as server:
        url = f"https://127.0.0.1:{server.port}/no?key=s3cret"
        status, said = await ping(0, "-c1", url)
    assert status == 2
    assert said.complaints[0].startswith(
        f"https://127.0.0.1:{server.port}/no?***: the server answered 404 for /no?*** ("
    )


async def test_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, health, labels and logs."""
    noting = Noting()
    dead = closed_port()
    async with serving(noting) as server, serving(Refusing()) as refusing:
        urls = [
            *(f"https://127.0.0.1:{server.port}/ping?{query}" for query in SECRETS),
            *(f"https://127.0.0.1:{port}/ping?key=s3cret" for port in (refusing.port, dead)),
        ]
        options: dict[str, Any] = {"targets": tuple(urls), "ready_requires": "all"}
        async with running(monkeypatch, **options) as run:
            await until(lambda: len(run.events("target_up")) == 3)
            await until(lambda: len(run.events("connect_failed")) == 2)
            pages = [
                await run.get(page)
                for page in ("/config", "/readyz", "/readyz?verbose", "/livez?verbose", "/metrics")
            ]
            names = await run.metric("session_up")
        assert sorted(noting.paths[:3]) == sorted(f"/ping?{query}" for query in SECRETS)
        for _, text in pages:
            assert "s3cret" not in text
        assert json.loads(pages[0][1])["targets"] == [
            url.partition("?")[0] + "?***" for url in urls
        ]
        shown = f"127.0.0.1:{server.port}"
        assert list(names) == [
            *(shown, f"{shown}#2", f"{shown}#3"),
            *(f"127.0.0.1:{port}" for port in (refusing.port, dead)),
        ]
        assert "the server answered 404 for /ping?***" in pages[1][1]
        for event in ("started", "target_added", "connect_failed", "target_up"):
            assert run.events(event)
            assert "s3cret" not in json.dumps(run.events(event))


@pytest.mark.parametrize(
    "given",
    [
        "http://host/?s3cret",
        "https://me:s3cret@host/",
        "me:s3cret@host",
        "https://host/#s3cret",
        "https://a..b/?key=s3cret",
        "host:99999/?key=s3cret&b=s3cret#s3cret",
        "https://a..b/?s3cret https://c/?s3cret",
    ],
)
def test_a_mistake_in_the_settings(given: str) -> None:
    for parse in (
        lambda: PingSettings.parse([given], {}),
        lambda: PingSettings.parse([], {"PINGPONG_TARGETS": given}),
        lambda: ProbeSettings.parse([given], {}),
        lambda: ProbeSettings.parse(["--no-such-option", f"--x={given}", given], {}),
    ):
        with pytest.raises(SettingsError) as raised:
            parse()
        assert "s3cret" not in str(raised.value)


def test_what_is_shown_of_settings() -> None:
    chosen = settings(targets=("https://a/?s3cret", "srv://_s._udp.b/ping?s3cret"))
    assert chosen.masked()["targets"] == ["https://a/?***", "srv://_s._udp.b/ping?***"]
    assert chosen.targets == ("https://a/?s3cret", "srv://_s._udp.b/ping?s3cret")
    urls = PingSettings.parse(["https://a/?s3cret"], {})
    assert urls.masked()["targets"] == ["https://a/?***"]


async def test_a_name_has_one_form_for_lookup_tls_and_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a person reads, what is looked up, and what the server is asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1", *arguments, **options)

    seen: list[str] = []

    class Authorities(Router):
        def session_requested(self, session: Session) -> None:
            seen.append(session.request.authority)
            super().session_requested(session)

    async with serving(Authorities(1 << 16)) as server:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        _, said = await ping(0, "-c1", "-w0.5", f"https://Straße.test:{server.port}/ping")
    assert asked == ["xn--strae-oqa.test"]
    assert seen == [f"xn--strae-oqa.test:{server.port}"]
    assert said.lines[0].startswith(
        f"PING https://xn--strae-oqa.test:{server.port}/ping (127.0.0.1)"
    )
