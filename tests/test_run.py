from __future__ import annotations

import os
import re
import signal

import pytest

from pingpong.run import describe
from tests.support.processes import Process, children, run

pytestmark = pytest.mark.process


def test_describe() -> None:
    listening = {
        "event": "listening",
        "level": "info",
        "host": "127.0.0.1",
        "port": 4433,
        "sha256": "0123456789abcdef" * 4,
        "receive_buffer": 1,
    }
    assert describe(listening) == "listening on 127.0.0.1 port 4433, self-signed certificate"
    assert describe({"event": "stopping", "signal": "SIGTERM", "connections": 0}) == "stopping"
    admin = {"event": "admin_listening", "level": "info", "host": "127.0.0.1", "port": 8080}
    assert describe(admin) == "health and metrics at http://127.0.0.1:8080"
    other = {"event": "x", "level": "info", "logger": "l", "timestamp": "t", "a": 1, "b": "c"}
    assert describe(other) == "x: a 1, b c"
    assert describe({"event": "stopped", "level": "info"}) == "stopped"


def test_a_count_ends_by_itself() -> None:
    status, out, err = run("run", "-c5", "-i0.01")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(r"server \| health and metrics at http://127\.0\.0\.1:\d+", lines[0])
    assert lines[1].startswith("server | listening on 127.0.0.1 port ")
    # The client begins when the server listens, whichever line comes first then.
    (command,) = [line for line in lines if "another terminal" in line]
    url = re.findall(r"ping (https://\S+/ping) --cert-hash [0-9a-f]{64}$", command)[0]
    assert any(line.startswith(f"client | PING {url} (127.0.0.1)") for line in lines)
    lines.remove(command)
    assert sum("bytes from" in line for line in lines) == 5
    assert re.search(
        r"^client \| 5 sent, 5 received, (\d+ skipped, )?0% loss, time \d+ ms$", out, re.MULTILINE
    )
    assert lines[-2:] == ["server | stopping", "server | stopped"]
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("words", [["--log-level=error", "-q"], ["--log-level=debug"]])
def test_log_levels(words: list[str]) -> None:
    """The client is told of the server's port whatever is shown."""
    status, out, err = run("run", "-c1", "--mode=uni", *words)
    assert (status, err) == (0, "")
    assert ("server |" in out) == ("debug" in words[0])
    assert ("session_requested" in out) == ("debug" in words[0])
    assert "1 sent, 1 received" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal(number: signal.Signals) -> None:
    with Process("run", "-i0.05") as both:
        both.read_until("seq=2 ")
        both.send(number)
        status, out, err = both.finish()
    assert (status, err) == (0, "")
    assert "client | --- https://127.0.0.1:" in out
    assert out.endswith("server | stopping\nserver | stopped\n")


def test_the_server_s_end_is_the_end() -> None:
    """It is no other's: there is none to wait for."""
    with Process("run", "-i0.1") as both:
        both.read_until("seq=1 ")
        (server,) = children(both.popen.pid)
        os.kill(server, signal.SIGKILL)
        status, out, err = both.finish()
    assert status == 2
    assert "the server stopped" in err
    assert "connecting again" not in out
