"""Fault: the certificate is swapped, is no good any more, or is for another name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pingpong.webtransport.asyncio import Cause, ConnectError, connect
from pingpong.webtransport.certificates import Certificate
from tests.integration.services import (
    Probe,
    Server,
    at,
    own_address,
    ping,
    probing,
    serving,
)
from tests.support.certificates import Authority, Pair
from tests.support.engines import OTHER, in_turn, on, on_both

RELOAD_FAILED = "pingpong_server_certificate_reload_failed"
NOT_AFTER = "pingpong_server_certificate_not_after_timestamp_seconds"
PEER_NOT_AFTER = "pingpong_client_peer_certificate_not_after_timestamp_seconds"


@pytest.fixture
def place() -> str:
    return own_address()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "tls")


def shown(server: Server, authority: Authority) -> float:
    """When the certificate ends that the server shows a new client, which trusts the authority."""
    with probing(server, ca=authority.file) as probe:
        return probe.metrics().total(PEER_NOT_AFTER)


def shows(server: Server, certificate: Certificate) -> bool:
    """Whether a new client that insists on this certificate gets a session."""

    async def ask() -> bool:
        try:
            async with await connect(server.url, certificate_hash=certificate.sha256):
                return True
        except ConnectError as error:
            if error.cause is not Cause.CERTIFICATE:
                raise
            return False

    return asyncio.run(ask())


def assert_undisturbed(probe: Probe) -> None:
    """The session that was there goes on."""
    metrics = probe.wait_answers()
    assert metrics.connects("ok") == metrics.total("pingpong_client_connects_total") == 1
    assert metrics.completed("lost") + metrics.completed("late") == 0
    assert not probe.events("target_down")


@in_turn(
    "swap,workers",
    [(Pair.write_in_place, 1), (Pair.rename_over, 1), (Pair.swap_link, 1), (Pair.swap_link, 2)],
)
def test_swapped(
    place: str,
    authority: Authority,
    pair: Pair,
    swap: Callable[[Pair, Certificate], None],
    workers: int,
) -> None:
    old = authority.issue(place)
    new = authority.issue(place, ends=timedelta(hours=48))
    write = pair.swap_link if swap is Pair.swap_link else pair.write_in_place
    write(old)
    with (
        serving(place, workers=workers, **pair.settings) as server,
        probing(server, ca=authority.file) as probe,
    ):
        assert probe.metrics().total(PEER_NOT_AFTER) == old.not_after.timestamp()
        swap(pair, new)
        changed = server.wait_event("certificate_changed")
        assert changed["sha256"] == new.sha256.hex()
        metrics = server.metrics()
        assert metrics.total(NOT_AFTER) == new.not_after.timestamp()
        assert metrics.total(RELOAD_FAILED) == 0
        assert not server.events("certificate_unusable")
        # Each worker shows it: a client gets to any of them.
        for _ in range(6 * (workers - 1) + 1):
            assert shows(server, new)
        assert not shows(server, old)
        assert_undisturbed(probe)
        assert server.checks()["self_ping"][0]


@on(OTHER)
def test_a_signal_has_it_read_at_once(place: str, authority: Authority, pair: Pair) -> None:
    pair.write_in_place(authority.issue(place))
    with serving(place, **pair.settings) as server:
        new = authority.issue(place)
        pair.write_in_place(new)
        server.reload()
        changed = server.wait_event("certificate_changed")
        assert changed["sha256"] == new.sha256.hex()
        assert abs(at(changed) - at(server.events("reloading")[0])) < 0.5
        assert shows(server, new)


def damage(pair: Pair, authority: Authority, place: str) -> None:
    (pair.folder / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nnot this\n")


def remove(pair: Pair, authority: Authority, place: str) -> None:
    (pair.folder / "tls.key").unlink()


def take_another_key(pair: Pair, authority: Authority, place: str) -> None:
    (pair.folder / "tls.key").write_bytes(authority.issue(place).key_pem())


def let_expire(pair: Pair, authority: Authority, place: str) -> None:
    pair.write_in_place(authority.issue(place, ends=timedelta(minutes=-1)))


@in_turn("spoil", [damage, remove, take_another_key, let_expire])
def test_a_bad_new_pair_is_kept_out(
    place: str,
    authority: Authority,
    pair: Pair,
    spoil: Callable[[Pair, Authority, str], None],
) -> None:
    old = authority.issue(place)
    pair.write_in_place(old)
    with (
        serving(place, **pair.settings) as server,
        probing(server, ca=authority.file) as probe,
    ):
        spoil(pair, authority, place)
        server.reload()
        server.reload()  # the first time it may be in the midst of a change
        unusable = server.wait_event("certificate_unusable")
        assert str(pair.folder) in unusable["error"]
        assert unusable["sha256_kept"] == old.sha256.hex()
        metrics = server.metrics()
        assert metrics.total(RELOAD_FAILED) == 1
        assert metrics.total(NOT_AFTER) == old.not_after.timestamp()
        assert shows(server, old)

        new = authority.issue(place, ends=timedelta(hours=48))
        pair.write_in_place(new)
        server.reload()
        server.wait_event("certificate_changed")
        assert server.metrics().total(RELOAD_FAILED) == 0
        assert shown(server, authority) == new.not_after.timestamp()
        assert_undisturbed(probe)
        # Nothing of a key is in what was said.
        assert "-----BEGIN" not in "".join(server.err)


@on_both
def test_expired_under_a_session(place: str, authority: Authority, pair: Pair) -> None:
    certificate = authority.issue(place, ends=timedelta(seconds=8))
    pair.write_in_place(certificate)
    with serving(place, **pair.settings) as server:
        assert "expires in" in server.wait_event("certificate_expiry")["warning"]
        with probing(server, ca=authority.file) as probe:
            expired = server.wait_event("certificate_expiry", 2)
            assert "expired at" in expired["warning"]
            assert at(expired) >= certificate.not_after.timestamp()
            assert_undisturbed(probe)
            with Probe(server, ca=authority.file) as late:
                assert_refused(late, "out of date")
            # What has expired can be replaced.
            pair.write_in_place(authority.issue(place))
            server.reload()
            server.wait_event("certificate_changed")
            ping(server, "-c1", f"--ca={authority.file}")
            assert_undisturbed(probe)


def assert_refused(probe: Probe, cause: str) -> None:
    """Its log and its metrics say that it is the certificate, and what is wrong with it."""
    failed = probe.wait_event("connect_failed")
    assert failed["result"] == "tls"
    assert cause in failed["error"]
    metrics = probe.wait_metrics(lambda m: m.connects("tls") >= 3, "it is tried again and again")
    assert metrics.total("pingpong_client_connects_total") == metrics.connects("tls")
    assert metrics.total("pingpong_client_session_up") == 0
    is_ok, reason = probe.checks()["targets"]
    assert is_ok  # it measures
    assert cause in reason
    assert len(probe.events("connect_failed")) == 1


@on_both
@pytest.mark.parametrize(
    ("host", "until", "cause"),
    [
        ("{place}", timedelta(minutes=-1), "out of date"),
        ("other.test", timedelta(hours=1), "is for other.test, not for {place}"),
    ],
)
def test_no_good_from_the_beginning(
    place: str, authority: Authority, pair: Pair, host: str, until: timedelta, cause: str
) -> None:
    pair.write_in_place(authority.issue(host.format(place=place), ends=until))
    with (
        serving(place, **pair.settings) as server,
        Probe(server, ca=authority.file) as probe,
    ):
        assert_refused(probe, cause.format(place=place))
        # The server's end knows of it too; it pings itself with what it has.
        handshakes = server.metrics().total("pingpong_server_handshakes_total", result="failed")
        assert handshakes >= 3
        # The right one ends it, without anybody's help.
        pair.write_in_place(authority.issue(place))
        server.reload()
        up = probe.wait_up()
        assert at(up) - at(server.events("reloading")[0]) < 2


@on_both
def test_of_an_authority_that_nobody_knows(
    place: str, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    pair.write_in_place(Authority(tmp_path / "other").issue(place))
    with (
        serving(place, **pair.settings) as server,
        Probe(server, ca=authority.file) as probe,
    ):
        assert_refused(probe, "is not trusted")
        # Authorities are read anew for each attempt.
        authority.file.write_bytes((tmp_path / "other" / "ca.pem").read_bytes())
        probe.wait_up()
