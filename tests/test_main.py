from __future__ import annotations

import ast
import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pingpong
from pingpong import __main__, __version__
from tests.support.certificates import self_signed
from tests.support.processes import Process, environment, run, serving


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h", "help"):
        assert __main__.main([word]) == 0
        captured = capsys.readouterr()
        assert captured.out == __main__.USAGE
        assert captured.err == ""
    assert __main__.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pingpong {__version__}\n"


def test_usage_fits_a_terminal() -> None:
    assert all(len(line) <= 80 for line in __main__.USAGE.splitlines())


def test_usage_names_every_verb() -> None:
    for verb in __main__.VERBS:
        assert f"\n  {verb} " in __main__.USAGE
    assert all(len(line) <= 80 for line in __main__.USAGE.splitlines())


def test_help_of_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    texts = set()
    for words in (["help", "serve"], ["serve", "--help"], ["serve", "-h"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            __main__.main(words)
        texts.add(capsys.readouterr().out)
    (text,) = texts
    assert text.startswith("usage: pingpong serve [options]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),
        (["tracer"], "pingpong: there is no verb tracer\n\n"),
        (["help", "tracer"], "pingpong: there is no verb tracer\n\n"),
        (["pnig", "host"], "pingpong: there is no verb pnig; did you mean ping?\n\n"),
        (
            ["localhost", "-c", "3"],
            "pingpong: there is no verb localhost; did you mean `pingpong ping localhost -c 3`?\n\n",
        ),
        (["--count=1"], "pingpong: put --count after the verb\n\n"),
    ],
)
def test_no_such_verb(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == said + __main__.USAGE


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (["ping"], "TARGET is missing"),
        (["ping", "host", "--interval", "0"], "--interval 0 (PINGPONG_INTERVAL): must be"),
        (["serve", "--bind-prot=1"], "--bind-prot: no such option; did you mean --bind-port?"),
        (["run", "-c", "0"], "--count 0 (PINGPONG_COUNT): must be"),
    ],
)
def test_mistakes(words: list[str], mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(words) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("pingpong: ")
    assert mistake in first
    assert last == f"pingpong: see `pingpong {words[0]} --help`"


def test_a_variable_that_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PINGPONG_INTERVALL", "1")
    monkeypatch.setattr(__main__, "_run", lambda main: main.close() or 0)
    assert __main__.main(["ping", "localhost"]) == 0
    assert "PINGPONG_INTERVALL is not a setting; did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "module", "what", "extra"),
    [
        (
            ["serve", "--auth=kubernetes"],
            "kubernetes",
            "--auth kubernetes (PINGPONG_AUTH)",
            "server",
        ),
        (["probe", "localhost"], "dns", "pingpong probe", "client"),
        (["ping", "--live", "localhost"], "rich", "--live (PINGPONG_LIVE)", "client"),
    ],
)
def test_what_needs_an_extra_that_is_not_installed(
    words: list[str],
    module: str,
    what: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(__main__, "_exit_at_sigterm", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == module else name)
        assert __main__.main(words) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        f"pingpong: {what} needs the package {module}: run `pip install '.[{extra}]'` in a clone of"
        f" pingpong, or use the {extra}'s image, pingpong-{extra}"
    )


def test_interrupted_before_the_verb_could_handle_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(__main__.VERBS, "ping", interrupted)
    assert __main__.main(["ping", "localhost"]) == 130


def test_a_python_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert __main__.main(["ping", "localhost"]) == 2
    assert capsys.readouterr().err == "pingpong: needs Python 3.11 or newer, and this is 3.10\n"


def test_the_command_s_own_files_can_be_read_by_an_old_python() -> None:
    """So that it is the command that says what is wrong, and not the compiler."""
    for module in (pingpong, __main__):
        assert module.__file__ is not None
        ast.parse(Path(module.__file__).read_bytes(), feature_version=(3, 8))


# The command as a process


@pytest.fixture(scope="module")
def ping() -> Iterator[list[str]]:
    """The words with which to ping a server."""
    with serving() as (_, words):
        yield words


@pytest.mark.process
def test_sigint_prints_the_summary(ping: list[str]) -> None:
    with Process(*ping, "-i0.01") as client:
        client.read_until("seq=3 ")
        client.send(signal.SIGINT)
        status, out, err = client.finish()
    assert (status, err) == (0, "")
    assert "\n--- https://127.0.0.1:" in out
    assert "received" in out


@pytest.mark.process
def test_sigquit_prints_an_interim_summary(ping: list[str]) -> None:
    with Process(*ping, "-i0.01") as client:
        client.read_until("seq=3 ")
        client.send(signal.SIGQUIT)
        client.read_until("pingpong statistics ---")
        client.read_until("seq=")
        client.send(signal.SIGINT)
        status, out, err = client.finish()
    assert (status, err) == (0, "")
    assert "pingpong statistics ---" in out


@pytest.mark.process
@pytest.mark.parametrize("words", [["-i0.05"], ["-f"], ["--json", "-i0.05"]])
def test_nobody_reads_the_output(ping: list[str], words: list[str]) -> None:
    head = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert head.stdin is not None
    with Process(*ping, *words, "-w3", stdout=head.stdin.fileno()) as client:
        head.stdin.close()
        status, _, err = client.finish()
    assert head.wait() == 0
    assert status in (0, 1)
    assert err == ""


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [
        "--help >/dev/full",
        "--version >/dev/full",
        "ping --bad 2>/dev/full",
        "ping 127.0.0.1:9 -w1 2>&-",
    ],
)
def test_where_output_cannot_be_written(command: str) -> None:
    words = f"'{sys.executable}' -m pingpong {command}"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_a_failed_connection_is_one_line_and_status_2(ping: list[str]) -> None:
    """And what aioquic has to say of it is not beside it."""
    status, out, err = run("ping", ping[1], "-c1", "--cert-hash", "ab" * 32)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"pingpong: {ping[1]}: the certificate")
    status, out, err = run("ping", ping[1], "-c1")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


@pytest.mark.process
def test_stopped_and_continued(ping: list[str]) -> None:
    """Ctrl-Z and fg: no burst, and what was skipped is told."""
    with Process(*ping, "-i0.05") as client:
        client.read_until("seq=3 ")
        client.send(signal.SIGSTOP)
        stat = Path(f"/proc/{client.popen.pid}/stat")
        while stat.read_text().split()[2] != "T":
            pass
        run(*ping, "-c4", "-i0.1")  # until it must have missed slots
        client.send(signal.SIGCONT)
        *_, told = client.read_until("skipped while stopped")
        skipped = int(re.match(r"(\d+) pings skipped", told)[1])  # type: ignore[index]
        assert skipped >= 5
        client.send(signal.SIGINT)
        status, out, err = client.finish()
    assert (status, err) == (0, "")
    counts = re.search(r"(\d+) sent, .* (\d+) skipped, 0% loss, time (\d+) ms", out)
    assert counts is not None
    sent, all_skipped, elapsed = map(int, counts.groups())
    assert all_skipped >= skipped
    # A ping a slot, but for those that were skipped.
    assert abs(elapsed / 50 + 1 - sent - all_skipped) <= 2


@pytest.mark.process
def test_the_server_is_killed_and_started_again(tmp_path: Path) -> None:
    """On its port, with the same certificate: pinging goes on by itself."""
    made = self_signed("127.0.0.1")
    file = tmp_path / "both.pem"
    file.write_bytes(made.private_pem())
    tls = (f"--tls-cert-file={file}", f"--tls-key-file={file}")
    with serving(*tls) as (server, words), Process(*words, "-i0.1") as client:
        client.read_until("seq=2 ")
        server.send(signal.SIGKILL)
        *_, told = client.read_until("connecting again")
        assert told.startswith("the server stopped: its UDP port is closed")
        client.read_until("still not connected")
        port = urlsplit(words[1]).port
        with serving(*tls, f"--bind-port={port}"):
            *_, told = client.read_until("connected again")
            assert re.match(r"connected again to 127\.0\.0\.1 after [\d.]+ m?s: ", told)
            client.read_until("bytes from")
            client.send(signal.SIGINT)
            status, out, err = client.finish()
    assert (status, err) == (0, "")
    assert "\n1 outage of " in out


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["ping", "localhost"], "pydantic.main"),
        (["ping", "localhost"], "uvloop"),
        (["serve"], "pingpong.telemetry.logs"),
        (["probe", "localhost"], "pingpong.settings.base"),
        (["run"], "uvloop"),
    ],
)
def test_interrupted_during_the_start(words: list[str], module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "pingpong", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f" {module}"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert "Traceback" not in rest
    # Where the signal came late, the verb handled it.
    assert process.returncode in (130, 0, 1, 2)
