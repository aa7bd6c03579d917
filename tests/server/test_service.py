from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
import signal
import socket
from pathlib import Path

import pytest

from pingpong.server import ServeError
from pingpong.server.resources import usable_cores
from pingpong.server.service import ping_command
from pingpong.server.tls.keeper import make_keeper, own_hosts
from pingpong.settings import PingSettings, ServeSettings
from tests.support.certificates import Authority
from tests.support.processes import Process, run, serving

NOW = datetime.datetime.now(datetime.UTC)


def settings(**changes: object) -> ServeSettings:
    return ServeSettings(bind_host="127.0.0.1", bind_port=0, **changes)  # type: ignore[arg-type]


def write_certificate(folder: Path, name: str = "a") -> tuple[Path, Path]:
    made = Authority().issue("localhost", "127.0.0.1")
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(made.pem())
    key_file.write_bytes(made.key_pem())
    return cert_file, key_file


# What it starts with


@pytest.mark.parametrize(
    ("bind_host", "name", "hosts"),
    [
        ("::", "box", ["localhost", "127.0.0.1", "::1", "box"]),
        ("0.0.0.0", "", ["localhost", "127.0.0.1", "::1"]),
        ("192.0.2.7", "localhost", ["localhost", "127.0.0.1", "::1", "192.0.2.7"]),
        ("fe80::1%eth0", "box.", ["localhost", "127.0.0.1", "::1", "fe80::1"]),
        ("127.0.0.1", "not a name", ["localhost", "127.0.0.1", "::1"]),
    ],
)
def test_made_certificate_is_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, bind_host: str, name: str, hosts: list[str]
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert own_hosts(bind_host) == hosts
    make_keeper(ServeSettings(bind_host=bind_host), NOW)


def test_a_host_that_no_certificate_can_be_for() -> None:
    with pytest.raises(
        ServeError, match=r"^--bind-host \(PINGPONG_BIND_HOST\): cannot listen on not a host: "
    ):
        make_keeper(ServeSettings(bind_host="not a host"), NOW)


def test_certificate_from_files(tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    keeper = make_keeper(settings(tls_cert_file=cert_file, tls_key_file=key_file), NOW)
    assert keeper.certificate.pem() == cert_file.read_bytes()


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 3), ("150000 100000", 2), ("10000 100000", 1), ("900000 100000", 3), ("", 3)],
)
def test_usable_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    file = tmp_path / "cpu.max"
    file.write_text(f"{quota}\n")
    assert usable_cores(file) == cores
    assert usable_cores(tmp_path / "none") == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bind_host": "::"}, ["https://localhost:4433/ping"]),
        ({"bind_host": "192.0.2.7"}, ["https://192.0.2.7:4433/ping"]),
        ({"bind_host": "2001:db8::7"}, ["https://[2001:db8::7]:4433/ping"]),
        (
            {"bind_host": "0.0.0.0", "auth": "token", "token_file": "a b"},
            ["https://localhost:4433/ping", "--token-file", "a b"],
        ),
    ],
)
def test_the_command_that_is_suggested(changes: dict[str, object], words: list[str]) -> None:
    made = make_keeper(settings(), NOW).certificate
    given = ServeSettings.model_validate(changes)
    command = shlex.split(ping_command(given, 4433, made))
    parsed = PingSettings.parse(command[command.index("ping") + 1 :], {})
    expected = PingSettings.parse([*words, "--cert-hash", made.sha256.hex()], {})
    assert parsed == expected
    assert shutil.which(command[0])


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
def test_the_suggested_command_pings_a_server_that_kept_its_certificate(
    tmp_path: Path, workers: int
) -> None:
    words = (f"--state-dir={tmp_path}", f"--workers={workers}")
    commands = []
    for _ in range(2):
        with serving(*words) as (server, _):
            command = server.read_event("command_suggested")["command"]
            pinging = shlex.split(command)
            assert run(*pinging[pinging.index("ping") :], "-c1")[0] == 0
            commands.append(command.partition("--cert-hash")[2])
    assert commands[0] == commands[1]


# Where it cannot start


def fails(*words: str) -> str:
    status, out, err = run("serve", "--bind-host=127.0.0.1", "--admin-port=0", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    return line


@pytest.mark.process
def test_port_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        line = fails(f"--bind-port={port}")
    assert line == (
        f"pingpong: UDP port {port} of 127.0.0.1 is in use: choose another port with"
        " --bind-port (PINGPONG_BIND_PORT), or 0 for any free port"
    )


@pytest.mark.process
def test_key_of_another_certificate(tmp_path: Path) -> None:
    cert_file, _ = write_certificate(tmp_path, "a")
    _, other = write_certificate(tmp_path, "b")
    line = fails(f"--tls-cert-file={cert_file}", f"--tls-key-file={other}")
    assert line.startswith(f"pingpong: the key in {other} does not belong to the certificate in")


@pytest.mark.process
def test_a_state_folder_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    line = fails("--bind-port=0", f"--state-dir={file}")
    assert line == (
        f"pingpong: --state-dir (PINGPONG_STATE_DIR): cannot keep a certificate in {file}:"
        " not a directory; check its path and permissions"
    )


@pytest.mark.process
def test_no_key(tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    key_file.unlink()
    line = fails(f"--tls-cert-file={cert_file}", f"--tls-key-file={key_file}")
    assert line.startswith(f"pingpong: cannot read the key file {key_file}: no such file")


# How it ends


@pytest.mark.process
def test_a_second_signal_ends_it_at_once() -> None:
    with serving() as (server, ping), Process(*ping) as client:
        client.read_until("seq=1 ")
        client.send(signal.SIGSTOP)  # so that there is something to wait for
        server.send(signal.SIGTERM)
        event = server.read_event("drain_started")
        assert (event["sessions"], event["timeout"]) == (1, 25)
        assert "a second Ctrl-C ends the server" in event["hint"]
        server.send(signal.SIGTERM)
        status, _, err = server.finish()
        assert status == 128 + signal.SIGTERM
        assert "stopped" not in err


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_no_session_it_ends_in_order_and_at_once(number: signal.Signals) -> None:
    with serving() as (server, _):
        server.send(number)
        status, out, err = server.finish()
        assert (status, out) == (0, "")
        events = [json.loads(line)["event"] for line in err.splitlines()]
        assert events[-2:] == ["stopping", "stopped"]
        assert "drain_started" not in events


@pytest.mark.process
def test_sessions_that_do_not_leave_are_closed_in_the_end() -> None:
    with serving("--drain-timeout=0.3") as (server, ping), Process(*ping) as client:
        client.read_until("seq=1 ")
        client.send(signal.SIGSTOP)
        server.send(signal.SIGTERM)
        assert server.read_event("drain_started")["sessions"] == 1
        assert server.read_event("drain_timed_out")["sessions"] == 1
        assert server.finish()[0] == 0


@pytest.mark.process
def test_admin_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        status, out, err = run(
            "serve", "--bind-host=127.0.0.1", "--bind-port=0",
            "--admin-host=127.0.0.1", f"--admin-port={port}",
        )  # fmt: skip
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"pingpong: cannot listen for HTTP on 127.0.0.1 port {port}: the port is in use;"
        " set --admin-port (PINGPONG_ADMIN_PORT) to another one (0: any)"
    )


@pytest.mark.process
def test_a_token_file_that_is_not_there() -> None:
    line = fails("--bind-port=0", "--auth=token", "--token-file=/nowhere/tokens")
    assert line == (
        "pingpong: --token-file (PINGPONG_TOKEN_FILE): cannot read the token file /nowhere/tokens:"
        " no such file or directory; check its path and permissions"
    )


@pytest.mark.process
def test_no_cluster_to_ask_about_tokens() -> None:
    line = fails("--bind-port=0", "--auth=kubernetes")
    assert line.startswith("pingpong: ")
    assert "KUBECONFIG" in line
