"""A client's patience with a server that completes the handshake and says nothing more."""

from __future__ import annotations

import contextlib

import pytest

from pingpong.webtransport.asyncio import Cause, ConnectError, Limits, connect
from pingpong.webtransport.asyncio.endpoint import UdpEndpoint
from pingpong.webtransport.udp.sockets import bind_udp
from tests.webtransport.asyncio.peers import on_a_loop, trusted
from tests.webtransport.raw import Raw


@pytest.mark.parametrize(
    ("timeout", "cause", "text"),
    [
        (0.3, Cause.NO_ANSWER, "no answer"),
        (30, Cause.REFUSED, "this side ended the connection with H3_MISSING_SETTINGS"),
    ],
)
@on_a_loop
async def test_settings_that_never_come(timeout: float, cause: Cause, text: str) -> None:
    server = UdpEndpoint(bind_udp("127.0.0.1", 0), trusted().config(), Raw().attach)
    url = f"https://127.0.0.1:{server.local_address[1]}/"
    with contextlib.closing(server), pytest.raises(ConnectError, match=text) as raised:
        await connect(
            url,
            certificate_hash=trusted().sha256,
            timeout=timeout,
            limits=Limits(header_timeout=1.0),
        )
    assert raised.value.cause is cause
