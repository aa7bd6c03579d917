"""Fault: a token is rotated, or revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.services import Probe, Server, probing, serving

OLD, NEW = "an-old-token-0123456789abcdef012345", "a-new-token-0123456789abcdef0123456"


@pytest.fixture
def servers_file(tmp_path: Path) -> Path:
    file = tmp_path / "server.tokens"
    file.write_text(f"{OLD}\n")
    return file


@pytest.fixture
def clients_file(tmp_path: Path) -> Path:
    file = tmp_path / "client.token"
    file.write_text(f"{OLD}\n")
    return file


def sessions(server: Server, result: str) -> float:
    return server.metrics().total("pingpong_server_sessions_total", result=result)


def assert_undisturbed(probe: Probe) -> None:
    metrics = probe.wait_answers()
    assert metrics.connects("ok") == metrics.total("pingpong_client_connects_total") == 1
    assert metrics.completed("lost") + metrics.completed("late") == 0


def assert_unauthorized(probe: Probe) -> None:
    """The cause is in its log, in its metrics, and in what it says of its health."""
    failed = probe.wait_event("connect_failed")
    assert failed["result"] == "unauthorized"
    assert "401" in failed["error"]
    metrics = probe.wait_metrics(lambda m: m.connects("unauthorized") >= 2, "it is tried again")
    assert metrics.total("pingpong_client_session_up") == 0
    assert "401" in probe.checks()["targets"][1]


def assert_no_secret_told(*services: Server | Probe) -> None:
    for service in services:
        told = [*service.out, *service.err, service.get("/config"), service.get("/metrics")]
        text = "\n".join([*told, service.ask("/readyz?verbose")[1]])
        for token in (OLD, NEW):
            assert token not in text
            assert token[:12] not in text


@pytest.mark.parametrize("workers", [1, 2])
def test_rotated(servers_file: Path, clients_file: Path, workers: int) -> None:
    with (
        serving(auth="token", token_file=servers_file, workers=workers) as server,
        probing(server, token_file=clients_file) as probe,
    ):
        # Both are good for a while, so that nobody is shut out.
        servers_file.write_text(f"{OLD}\n{NEW}\n")
        server.wait_event("tokens_loaded", workers, count=2)
        for token in (OLD, NEW):
            clients_file.write_text(token)
            with probing(server, token_file=clients_file) as other:
                other.wait_answers(1)
        servers_file.write_text(f"{NEW}\n")
        server.wait_event("tokens_loaded", 2 * workers, count=1)
        # A session that was admitted stays so; who comes with the old token does not get in.
        assert_undisturbed(probe)
        clients_file.write_text(OLD)
        with Probe(server, token_file=clients_file) as late:
            assert_unauthorized(late)
            assert sessions(server, "unauthorized") >= 2
            assert sessions(server, "accepted") == 3
            # It reads its file anew each time.
            clients_file.write_text(NEW)
            late.wait_up()
            assert late.wait_answers().connects("ok") == 1
            assert_no_secret_told(server, probe, late)


def test_revoked(servers_file: Path, clients_file: Path) -> None:
    with (
        serving(auth="token", token_file=servers_file, drain_timeout=0.1) as server,
        probing(server, token_file=clients_file) as probe,
    ):
        servers_file.write_text(f"{NEW}\n")
        server.reload()
        # The second of two: the first was at the start.
        server.wait_event("tokens_loaded", 2)
        assert_undisturbed(probe)
        server.kill()
        with serving(server.address, auth="token", token_file=servers_file) as again:
            probe.wait_event("connect_failed", result="unauthorized")
            assert sessions(again, "unauthorized") >= 1
            assert sessions(again, "accepted") == 0
            assert_no_secret_told(again, probe)


def test_a_file_that_cannot_be_used_changes_nothing(servers_file: Path, clients_file: Path) -> None:
    with serving(auth="token", token_file=servers_file) as server:
        servers_file.write_text("two words, and so no token\n")
        server.reload()
        server.reload()  # the first time it may be in the midst of a change
        unusable = server.wait_event("token_file_unusable")
        assert str(servers_file) in unusable["error"]
        assert "two words" not in unusable["error"]
        failed = "pingpong_server_token_file_reload_failed"
        assert server.metrics().total(failed) == 1
        with probing(server, token_file=clients_file) as probe:
            probe.wait_answers()
        servers_file.write_text(f"{NEW}\n")
        server.reload()
        server.wait_metrics(lambda m: m.total(failed) == 0, "it can be used again")
        clients_file.write_text(NEW)
        with probing(server, token_file=clients_file) as probe:
            probe.wait_answers()
            assert_no_secret_told(server, probe)


def test_a_client_without_its_token_says_so(servers_file: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.token"
    with (
        serving(auth="token", token_file=servers_file) as server,
        Probe(server, token_file=missing) as probe,
    ):
        failed = probe.wait_event("connect_failed")
        assert failed["result"] == "unauthorized"
        assert str(missing) in failed["error"]
        missing.write_text(OLD)
        probe.wait_up()
