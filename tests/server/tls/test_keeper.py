"""The certificate that is shown, through changes of its files and of the time."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pingpong.server.tls.keeper import CertificateFiles, CertificateKeeper, SelfSignedCertificates
from pingpong.webtransport.certificates import (
    Certificate,
    CertificateError,
    make_certificate,
    parse_certificate,
)
from pingpong.webtransport.quic.config import ServerIdentity
from pingpong.webtransport.states import State
from tests.server.sessions.asking import Asking
from tests.webtransport.wire import certificate as wire_certificate

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
Events = list[dict[str, Any]]


def made(days: float = 90, start: datetime = NOW) -> Certificate:
    return make_certificate(["localhost"], start, timedelta(days=days))


def key_of(certificate: Certificate) -> bytes:
    return certificate.private_pem().removeprefix(certificate.pem())


class Pair:
    """A certificate's two files, as an operator or cert-manager writes them."""

    def __init__(self, folder: Path, certificate: Certificate) -> None:
        self.cert_file = folder / "tls.crt"
        self.key_file = folder / "tls.key"
        self.write(certificate)

    def write(self, certificate: Certificate) -> None:
        self.cert_file.write_bytes(certificate.pem())
        self.key_file.write_bytes(key_of(certificate))

    def keeper(self, now: datetime = NOW) -> CertificateFiles:
        return CertificateFiles(self.cert_file, self.key_file, now)


@pytest.fixture
def first() -> Certificate:
    return made()


@pytest.fixture
def second() -> Certificate:
    return made(91)


@pytest.fixture
def pair(tmp_path: Path, first: Certificate) -> Pair:
    return Pair(tmp_path, first)


def names(logged: Events) -> list[str]:
    return [event["event"] for event in logged]


def check(keeper: CertificateKeeper, seconds: int, start: datetime = NOW) -> list[Certificate]:
    """Look once a second, and return what was new."""
    found = [keeper.check(start + SECOND * number) for number in range(1, seconds + 1)]
    return [certificate for certificate in found if certificate is not None]


# Files


def test_nothing_new_while_nothing_changes(pair: Pair, logged: Events) -> None:
    keeper = pair.keeper()
    os.utime(pair.cert_file)
    pair.key_file.write_bytes(pair.key_file.read_bytes())
    assert check(keeper, 3) == []
    assert logged == []
    assert keeper.origin == "file"
    assert not keeper.reload_failed


def test_a_new_pair_is_taken_and_its_hash_logged(
    pair: Pair, first: Certificate, second: Certificate, logged: Events
) -> None:
    keeper = pair.keeper()
    assert keeper.certificate == first
    pair.write(second)
    assert keeper.check(NOW) == second
    assert keeper.certificate == second
    assert check(keeper, 3) == []
    (event,) = logged
    assert event["event"] == "certificate_changed"
    assert event["sha256"] == second.sha256.hex()
    assert event["not_after"] == "2026-05-31T12:00:00+00:00"


def test_a_new_chain_is_a_new_certificate(
    pair: Pair, first: Certificate, second: Certificate
) -> None:
    keeper = pair.keeper()
    pair.cert_file.write_bytes(first.pem() + second.pem())
    (found,) = check(keeper, 2)
    assert found.chain == (second.certificate,)


def test_kubernetes_replaces_the_folder_behind_a_link(
    tmp_path: Path, first: Certificate, second: Certificate
) -> None:
    for name, certificate in (("v1", first), ("v2", second)):
        (tmp_path / name).mkdir()
        Pair(tmp_path / name, certificate)
    (tmp_path / "..data").symlink_to("v1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    keeper = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key", NOW)
    (tmp_path / "..data_tmp").symlink_to("v2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    assert check(keeper, 2) == [second]


@pytest.mark.parametrize("key_first", [False, True])
def test_a_pair_that_is_replaced_one_after_the_other_is_no_fault(
    pair: Pair, second: Certificate, key_first: bool, logged: Events
) -> None:
    keeper = pair.keeper()
    steps = [(pair.cert_file, second.pem()), (pair.key_file, key_of(second))]
    if key_first:
        steps.reverse()
    (file, data), (other_file, other_data) = steps
    file.write_bytes(data)
    assert keeper.check(NOW + SECOND) is None
    assert not keeper.reload_failed
    other_file.write_bytes(other_data)
    assert keeper.check(NOW + 2 * SECOND) == second
    assert names(logged) == ["certificate_changed"]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
@pytest.mark.parametrize("which", ["cert_file", "key_file"])
def test_a_bad_pair_is_kept_out_and_reported_once_a_minute(
    pair: Pair, first: Certificate, content: bytes | None, which: str, logged: Events
) -> None:
    keeper = pair.keeper()
    file: Path = getattr(pair, which)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert check(keeper, 130) == []
    assert keeper.certificate == first
    assert keeper.reload_failed
    assert names(logged) == ["certificate_unusable"] * 3
    assert str(file) in logged[0]["error"]
    assert logged[0]["sha256_kept"] == first.sha256.hex()
    assert not any(line in str(logged) for line in key_of(first).decode().splitlines()[1:-1])


def test_a_key_of_another_certificate_is_kept_out_until_it_is_put_right(
    pair: Pair, first: Certificate, second: Certificate, logged: Events
) -> None:
    keeper = pair.keeper()
    pair.key_file.write_bytes(key_of(second))
    assert check(keeper, 3) == []
    assert keeper.reload_failed
    assert "does not belong" in logged[0]["error"]
    pair.cert_file.write_bytes(second.pem())
    assert check(keeper, 3) == [second]
    assert not keeper.reload_failed
    assert names(logged) == ["certificate_unusable", "certificate_usable", "certificate_changed"]


def test_the_old_pair_put_back_is_no_new_one(
    pair: Pair, first: Certificate, logged: Events
) -> None:
    keeper = pair.keeper()
    pair.cert_file.write_bytes(b"")
    check(keeper, 3)
    pair.write(first)
    assert check(keeper, 3) == []
    assert not keeper.reload_failed
    assert names(logged) == ["certificate_unusable", "certificate_usable"]


@pytest.mark.parametrize(
    ("start", "reason"),
    [(NOW - 10 * DAY, "expired at"), (NOW + 2 * timedelta(hours=1), "not valid before")],
)
def test_a_pair_that_is_not_valid_does_not_replace_one_that_is(
    pair: Pair, start: datetime, reason: str, logged: Events
) -> None:
    keeper = pair.keeper()
    other = make_certificate(["localhost"], start, 5 * DAY)
    pair.write(other)
    assert check(keeper, 3) == []
    assert keeper.reload_failed
    assert reason in logged[0]["error"]
    if reason == "not valid before":
        assert keeper.check(NOW + timedelta(hours=1)) == other


def test_of_two_that_are_not_valid_the_new_one_is_taken(pair: Pair, second: Certificate) -> None:
    later = second.not_after + DAY
    keeper = pair.keeper(later)
    pair.write(second)
    assert keeper.check(later + SECOND) == second


def test_files_that_cannot_be_used_are_an_error_at_the_start(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(
        CertificateError, match=r"cannot read the certificate file .*: no such file"
    ):
        CertificateFiles(tmp_path / "none", pair.key_file, NOW)
    with pytest.raises(CertificateError, match=r"cannot read the key file .*: no such file"):
        CertificateFiles(pair.cert_file, tmp_path / "none", NOW)
    pair.key_file.write_bytes(b"")
    with pytest.raises(CertificateError, match="no private key in"):
        pair.keeper()


def test_looking_costs_next_to_nothing_while_nothing_changes(pair: Pair) -> None:
    keeper = pair.keeper()
    for file in (pair.cert_file, pair.key_file):
        os.utime(file, (1, 1))
    check(keeper, 1)
    began = time.thread_time()
    check(keeper, 200)
    assert (time.thread_time() - began) / 200 < 0.001


# Expiry of a given one


def test_a_certificate_that_expires_soon_is_warned_about_each_day(
    pair: Pair, first: Certificate, second: Certificate, logged: Events
) -> None:
    keeper = pair.keeper()
    assert check(keeper, 1, first.not_after - timedelta(days=7, seconds=10)) == []
    assert logged == []
    soon = first.not_after - timedelta(days=6, hours=23)
    for hour in range(49):
        keeper.check(soon + timedelta(hours=hour))
    assert names(logged) == ["certificate_expiry"] * 3
    assert [event["log_level"] for event in logged] == ["warning"] * 3
    assert "expires in 6 days, at 2026-05-30T12:00:00+00:00: renew it" in logged[0]["warning"]
    pair.write(second)
    keeper.check(soon + timedelta(hours=50))
    # The new one lasts a day longer, and is warned about on its own account.
    assert names(logged)[3:] == ["certificate_changed", "certificate_expiry"]


def test_a_certificate_that_has_expired_is_warned_about_at_once(
    pair: Pair, first: Certificate, logged: Events
) -> None:
    keeper = pair.keeper()
    keeper.check(first.not_after - SECOND)
    keeper.check(first.not_after + SECOND)
    assert ["expired at" in event["warning"] for event in logged] == [False, True]
    assert "expires in 0 hours" in logged[0]["warning"]


def test_one_that_is_not_valid_at_the_start_is_used_and_warned_about(
    pair: Pair, first: Certificate, logged: Events
) -> None:
    keeper = pair.keeper(first.not_before - DAY)
    assert keeper.certificate == first
    assert "not valid before" in logged[0]["warning"]


# Made ones


def test_a_made_certificate_is_replaced_when_a_third_of_its_life_is_left(logged: Events) -> None:
    keeper = SelfSignedCertificates(["localhost", "::1"], NOW)
    old = keeper.certificate
    turn = old.not_after - (old.not_after - old.not_before) / 3
    assert keeper.check(turn) is None
    new = keeper.check(turn + SECOND)
    assert new is not None
    assert new == keeper.certificate
    assert new.sha256 != old.sha256
    assert new.not_after == turn + SECOND + timedelta(days=13)
    assert new.not_after - new.not_before <= timedelta(days=14)
    assert keeper.check(turn + 2 * SECOND) is None
    (event,) = logged
    assert (event["event"], event["certificate"]) == ("certificate_changed", "self_signed")
    assert event["sha256"] == new.sha256.hex()


def test_a_made_certificate_is_valid_at_any_time_of_a_year() -> None:
    keeper = SelfSignedCertificates(["localhost"], NOW)
    fresh = 0
    for hour in range(0, 365 * 24, 6):
        now = NOW + timedelta(hours=hour)
        fresh += keeper.check(now) is not None
        assert keeper.certificate.warning(now) is None
        assert keeper.certificate.not_after - now > 4 * DAY
    assert fresh == 365 // 9 + 1


def test_a_clock_that_was_wrong_is_no_reason_to_show_what_is_not_valid() -> None:
    keeper = SelfSignedCertificates(["localhost"], NOW)
    for now in (NOW + 1000 * DAY, NOW, NOW - 1000 * DAY):
        assert keeper.check(now) is not None
        assert keeper.certificate.warning(now) is None


def test_hosts_that_are_none_are_an_error() -> None:
    with pytest.raises(ValueError, match="host"):
        SelfSignedCertificates(["a b"], NOW)


# Kept in a folder


def stored(folder: Path, now: datetime = NOW, host: str = "localhost") -> SelfSignedCertificates:
    return SelfSignedCertificates([host], now, folder)


def test_a_stored_certificate_is_used_by_the_next_process(tmp_path: Path, logged: Events) -> None:
    folder = tmp_path / "state" / "server"
    first = stored(folder).certificate
    assert stored(folder, NOW + DAY).certificate == first
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert names(logged) == []


def test_a_renewed_certificate_is_stored(tmp_path: Path) -> None:
    keeper = stored(tmp_path)
    later = NOW + 10 * DAY
    renewed = keeper.check(later)
    assert renewed is not None
    assert stored(tmp_path, later).certificate == renewed


@pytest.mark.parametrize(
    ("content", "now", "host", "reason"),
    [
        (None, NOW, "other.example", "other names"),
        (None, NOW + 10 * DAY, "localhost", "less than a third"),
        (b"", NOW, "localhost", "no certificate in"),
        (b"-----BEGIN CERTIFICATE-----\n", NOW, "localhost", "self-signed.pem"),
    ],
)
def test_a_stored_certificate_that_cannot_be_used_is_replaced(
    tmp_path: Path, logged: Events, content: bytes | None, now: datetime, host: str, reason: str
) -> None:
    old = stored(tmp_path).certificate
    if content is not None:
        (tmp_path / "self-signed.pem").write_bytes(content)
    new = stored(tmp_path, now, host).certificate
    assert new != old
    (event,) = logged
    assert event["event"] == "stored_certificate_replaced"
    assert reason in event["reason"]
    assert stored(tmp_path, now, host).certificate == new


def test_a_renewed_certificate_is_used_where_it_cannot_be_stored(
    tmp_path: Path, logged: Events
) -> None:
    folder = tmp_path / "state"
    keeper = stored(folder)
    (folder / "self-signed.pem").unlink()
    folder.rmdir()
    folder.write_text("a file")
    assert keeper.check(NOW + 10 * DAY) == keeper.certificate
    assert names(logged) == ["certificate_changed", "certificate_not_stored"]


# On the wire


def test_another_certificate_is_for_new_handshakes_and_drops_no_session() -> None:
    asking = Asking()
    wire = asking.wire
    assert asking.datagrams(b"ping1") == [b"pong1"]
    stream = asking.open(b"ping")
    new = make_certificate(["localhost"], datetime.now(UTC))
    wire.server_end.use_certificate(new)
    assert asking.datagrams(b"ping2") == [b"pong2"]
    other = wire.connect(ServerIdentity("localhost", certificate_hash=new.sha256))
    assert other.peer_certificate == new.certificate
    session, told = wire.session(path="/ping")
    assert session.send_datagram(b"ping3")
    wire.run()
    assert told.datagrams == [b"pong3"]
    # The first one goes on, also by a stream that it had open.
    stream.send(b"ping")
    wire.run()
    assert asking.told.data[stream.id] == b"pongpong"
    assert asking.datagrams(b"ping4") == [b"pong4"]
    assert asking.session.state is State.ESTABLISHED


def test_who_asks_for_the_old_certificate_gets_the_new_one() -> None:
    asking = Asking()
    new = make_certificate(["localhost"], datetime.now(UTC))
    asking.wire.server_end.use_certificate(new)
    asking.wire.connect(ServerIdentity("localhost", certificate_hash=wire_certificate().sha256))
    assert asking.wire.client.closed is not None
    seen = new.sha256.hex()
    assert f"SHA-256 is {seen}, not the one" in asking.wire.client.closed.reason


def test_no_session_tickets_are_given_out() -> None:
    """So nobody resumes a session of TLS with a certificate that is not shown any more."""
    asking = Asking()
    tls = asking.wire.server.engine._quic.tls
    assert tls.new_session_ticket_cb is None
    assert asking.wire.client.engine._quic.tls.session_resumed is False


# Between processes


def test_a_certificate_is_handed_to_another_process_as_text(
    first: Certificate, second: Certificate
) -> None:
    chained = Certificate(first.certificate, (second.certificate,), first.private_key)
    pem = chained.private_pem()
    file = Path("handed over")
    read = parse_certificate(pem, pem, file, file)
    assert read == chained
    assert read.private_key.public_key() == first.private_key.public_key()
    assert b"PRIVATE" not in chained.pem()
