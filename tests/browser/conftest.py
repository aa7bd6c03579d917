from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from pingpong.webtransport.certificates import Certificate
from tests.support.certificates import self_signed

PAGE = b"<!doctype html><title>test</title>"

HELPERS = """
const text = (bytes) => new TextDecoder().decode(bytes);
const bytes = (text) => new TextEncoder().encode(text);

async function connect(url, hash) {
    const value = Uint8Array.from(hash.match(/../g), (pair) => parseInt(pair, 16));
    const wt = new WebTransport(
        url, {serverCertificateHashes: [{algorithm: "sha-256", value}]});
    wt.closed.catch(() => {});
    await wt.ready;
    return wt;
}

async function next(readable) {
    const reader = readable.getReader();
    try {
        return (await reader.read()).value;
    } finally {
        reader.releaseLock();
    }
}

async function readAll(readable) {
    const chunks = [];
    const reader = readable.getReader();
    for (let result; !(result = await reader.read()).done;) chunks.push(result.value);
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function writeAll(writable, data) {
    const writer = writable.getWriter();
    await writer.write(typeof data === "string" ? bytes(data) : data);
    await writer.close();
}

// Datagrams may get lost, here as well: they are sent until something is the answer.
async function sendUntil(wt, message, answer) {
    const writer = wt.datagrams.writable.getWriter();
    const send = () => writer.write(message).catch(() => {});
    const again = setInterval(send, 250);
    try {
        send();
        return await answer;
    } finally {
        clearInterval(again);
        writer.releaseLock();
    }
}

const answerTo = (wt, message) => sendUntil(wt, bytes(message), next(wt.datagrams.readable));
const untilClosed = (wt, message) => sendUntil(wt, message, wt.closed);

async function failure(promise) {
    try {
        await promise;
    } catch (error) {
        return {name: error.constructor.name, source: error.source, code: error.streamErrorCode};
    }
}
"""


class Tab:
    """A page of a browser on which scripts run; `url` is where their server listens."""

    def __init__(self, page: Page, certificate: Certificate) -> None:
        self._page = page
        self._hash = certificate.sha256.hex()

    async def run(self, url: str, script: str) -> Any:
        """Run the body of an async function that has `wt`, a session on `url`, open."""
        return await self.run_without_session(
            url, f"const wt = await open(); try {{ {script} }} finally {{ wt.close(); }}"
        )

    async def run_without_session(self, url: str, script: str) -> Any:
        """Run the body of an async function that has `open()`, which resolves to a session."""
        return await self._page.evaluate(
            f"([url, hash]) => {{ {HELPERS} const open = (there = url) => connect(there, hash);"
            f" return (async () => {{ {script} }})(); }}",
            [url, self._hash],
        )


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed("127.0.0.1", "localhost")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    """One for the module: it takes longer to start than most tests to run."""
    # The sandbox of Chromium refuses to work for root, which is who runs tests in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[str]:
    """Where pages are: a secure context, which WebTransport wants, and on this machine.

    A page from elsewhere, or one that playwright makes up, may not connect to a server here
    (Local Network Access).
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}"
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + PAGE)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(browser: Browser, origin: str, certificate: Certificate) -> Tab:
    page = await browser.new_page()
    await page.goto(origin)
    return Tab(page, certificate)


@pytest_asyncio.fixture(loop_scope="module")
async def refused_tab(
    browser: Browser, origin: str, certificate: Certificate
) -> AsyncIterator[Tab]:
    """One for the test: a page that has had sessions refused is made to wait by Chromium."""
    page = await browser.new_page()
    try:
        await page.goto(origin)
        yield Tab(page, certificate)
    finally:
        await page.close()
