"""Chromium against `pingpong serve`: all that `/ping` and `/echo` do."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from playwright.async_api import Browser

from pingpong.webtransport.certificates import Certificate
from tests.support.docs import block
from tests.support.engines import ENGINES
from tests.support.processes import Process, environment

# importlib mode: fixtures come from conftest.py, which no test imports by name.
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def address(
    request: pytest.FixtureRequest,
    browser: Browser,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[str]:
    """A server in a process of its own, the way people start it."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "cert.pem").write_bytes(certificate.pem())
    (folder / "key.pem").write_bytes(
        certificate.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pingpong", "serve", "--bind-host", "127.0.0.1"),
        *("--bind-port", "0", "--admin-port", "0", "--engine", request.param),
        *("--tls-cert-file", str(folder / "cert.pem")),
        *("--tls-key-file", str(folder / "key.pem")),
        env=environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        listening: dict[str, Any] = {}
        while listening.get("event") != "listening":
            listening = json.loads(await process.stderr.readline())
        yield f"https://127.0.0.1:{listening['port']}"
    finally:
        process.terminate()
        await process.communicate()


async def test_ping_in_datagrams(tab: Any, address: str) -> None:
    answers = await tab.run(
        f"{address}/ping",
        """
        const answers = [];
        for (const message of ["ping", "ping with more", "what?"]) {
            answers.push(text(await answerTo(wt, message)));
        }
        return answers;
        """,
    )
    assert answers == ["pong", "pong with more", "?"]


async def test_ping_on_a_bidirectional_stream_is_answered_at_once(tab: Any, address: str) -> None:
    answers = await tab.run(
        f"{address}/",
        """
        const {readable, writable} = await wt.createBidirectionalStream();
        const writer = writable.getWriter();
        const answers = [];
        for (const message of ["ping", "pingping", "x"]) {
            await writer.write(bytes(message));
            answers.push(text(await next(readable)));
        }
        await writer.close();
        return [answers, text(await readAll(readable))];
        """,
    )
    assert answers == [["pong", "pongpong", "?"], ""]


async def test_ping_on_unidirectional_streams(tab: Any, address: str) -> None:
    answers = await tab.run(
        f"{address}/ping",
        """
        const answers = [];
        for (const message of ["ping", "ping with more", "what?"]) {
            await writeAll(await wt.createUnidirectionalStream(), message);
            answers.push(text(await readAll(await next(wt.incomingUnidirectionalStreams))));
        }
        return answers;
        """,
    )
    assert answers == ["pong", "pong with more", "?"]


async def test_echo_of_a_large_message(tab: Any, address: str) -> None:
    size = await tab.run(
        f"{address}/echo",
        """
        const {readable, writable} = await wt.createBidirectionalStream();
        const data = new Uint8Array(4 << 20).map((_, index) => index * 7 + (index >> 8));
        const [echo] = await Promise.all([readAll(readable), writeAll(writable, data)]);
        if (echo.some((byte, index) => byte !== data[index])) throw new Error("another echo");
        return echo.length;
        """,
    )
    assert size == 4 << 20


async def test_echo_of_many_streams_of_both_kinds(tab: Any, address: str) -> None:
    """More than the server lets be open at once; Chromium asks for no more than that itself."""
    counts = await tab.run(
        f"{address}/echo",
        """
        const exchange = async (index) => {
            const {readable, writable} = await wt.createBidirectionalStream();
            await writeAll(writable, `${index}`);
            return text(await readAll(readable));
        };
        const send = async (index) => {
            await writeAll(await wt.createUnidirectionalStream(), `${index}`);
        };
        const indices = [...Array(300).keys()];
        const echoes = [];
        for (let first = 0; first < 300; first += 50) {
            echoes.push(...await Promise.all(indices.slice(first, first + 50).map(exchange)));
        }
        const whole = new Set();
        const reader = wt.incomingUnidirectionalStreams.getReader();
        for (let first = 0; first < 300; first += 50) {
            await Promise.all(indices.slice(first, first + 50).map(send));
            while (whole.size < first + 50) {
                whole.add(text(await readAll((await reader.read()).value)));
            }
        }
        return [
            echoes.filter((echo, index) => echo === `${index}`).length,
            indices.filter((index) => whole.has(`${index}`)).length,
        ];
        """,
    )
    assert counts == [300, 300]


async def test_echo_of_a_reset(tab: Any, address: str) -> None:
    failure = await tab.run(
        f"{address}/echo",
        """
        const {readable, writable} = await wt.createBidirectionalStream();
        const writer = writable.getWriter();
        await writer.write(bytes("some"));
        await next(readable);
        await writer.abort(new WebTransportError({streamErrorCode: 42}));
        return await failure(readAll(readable));
        """,
    )
    assert failure == {"name": "WebTransportError", "source": "stream", "code": 42}


async def test_unknown_path(refused_tab: Any, address: str) -> None:
    script = "return await failure(open());"
    failure = await refused_tab.run_without_session(f"{address}/nothing-here", script)
    assert failure == {"name": "WebTransportError", "source": "session", "code": None}


async def test_another_certificate(refused_tab: Any, address: str) -> None:
    script = """
    return await failure(connect(url, "00".repeat(32)));
    """
    failure = await refused_tab.run_without_session(f"{address}/ping", script)
    assert failure == {"name": "WebTransportError", "source": "session", "code": None}


async def test_sessions_beside_each_other(tab: Any, address: str) -> None:
    answers = await tab.run_without_session(
        f"{address}/ping",
        """
        const sessions = await Promise.all([1, 2, 3, 4].map(() => open()));
        const answers = await Promise.all(sessions.map(async (wt, index) => {
            return text(await answerTo(wt, `ping ${index}`));
        }));
        for (const wt of sessions) wt.close();
        return answers;
        """,
    )
    assert answers == ["pong 0", "pong 1", "pong 2", "pong 3"]


async def test_the_example_in_the_docs_on_the_page_that_they_name(browser: Browser) -> None:
    with Process(
        *("serve", "--bind-host=127.0.0.1", "--bind-port=0"),
        *("--admin-host=127.0.0.1", "--admin-port=0", "--log-format=json"),
    ) as server:
        event = server.read_event("listening")
        code = block("docs/browsers.md", "js", "new WebTransport")
        code = code.replace("localhost:4433", f"127.0.0.1:{event['port']}")
        code = code.replace("2174a0ae…", event["sha256"])
        page = await browser.new_page()
        try:
            assert await page.evaluate("[location.href, typeof WebTransport]") == [
                "about:blank",
                "undefined",
            ]
            await page.goto(f"http://localhost:{event['admin_port']}/livez")
            # Chromium also says there that the admin port has no icon.
            async with page.expect_console_message(lambda m: m.type == "log") as logged:
                await page.evaluate(f"async () => {{ {code} }}")
            assert (await logged.value).text == "pong"
        finally:
            await page.close()
