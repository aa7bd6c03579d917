"""The loop that the package's docstring shows, as a program of its own would have it."""

from __future__ import annotations

import re
import textwrap
import time
from typing import Any

import pytest

import pingpong.link
from pingpong.link import Dialer, Link, LinkOptions, Observer, system_lookup
from pingpong.webtransport.asyncio import Target
from tests.client.ping.commands import serving
from tests.support.certificates import self_signed


async def test_the_measuring_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert pingpong.link.__doc__ is not None
    found = re.search(r"\n((?:    .*\n|\n)+)", pingpong.link.__doc__)
    assert found is not None
    program = textwrap.dedent(found[1])
    assert len(program.split("\n")) < 28
    names: dict[str, Any] = {
        "trusted": self_signed().sha256,
        "Dialer": Dialer,
        "Link": Link,
        "LinkOptions": LinkOptions,
        "Observer": Observer,
        "Target": Target,
        "system_lookup": system_lookup,
        "time": time,
    }
    program = program.replace("from_url(url)", "from_url(url, certificate_hash=trusted)")
    exec(program, names)
    async with serving() as server:
        await names["measure"](f"https://127.0.0.1:{server.port}/ping")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("up: 127.0.0.1")
    answers = [line for line in out if line.endswith(" ms")]
    assert [int(line.split()[0]) for line in answers] == list(range(1, 51))
    assert "received=50" in out[-1]
