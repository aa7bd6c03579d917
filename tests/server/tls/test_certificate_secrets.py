"""`pingpong certificate`: the real client library against an API server of ours."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pingpong import __main__
from pingpong.server.tls.certificate_secrets import keep_certificates
from pingpong.server.tls.issuing import AUTHORITY_VALID, CERTIFICATE_VALID, RENEW_AUTHORITY
from pingpong.settings import CertificateSettings
from pingpong.webtransport.certificates import make_certificate, parse_certificate
from tests.server.tls.test_issuing import HOSTS, NOW, trusts
from tests.support.kubernetes_api import TOKEN, ApiServer, Request, as_usual

AUTHORITY = "pingpong-authority"
CERTIFICATE = "pingpong-certificate"
BOTH = {AUTHORITY, CERTIFICATE}

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the verb; returns its exit status."""
    monkeypatch.setattr(__main__, "_exit_at_sigterm", lambda: None)
    for name in [name for name in os.environ if name.startswith("PINGPONG_")]:
        monkeypatch.delenv(name)

    def run(*options: str, hosts: list[str] | None = None) -> int:
        names = HOSTS if hosts is None else hosts
        return __main__.main(["certificate", "--namespace=testing", *options, *names])

    return run


def written(api: ApiServer) -> list[Request]:
    """What was asked of the API server except to read."""
    return [request for request in api.requests if request.verb != "get"]


def fits(api: ApiServer) -> bool:
    """Whether the key is the certificate's, and the authority in its Secret has signed it."""
    held, authority = api.data(CERTIFICATE), api.data(AUTHORITY)
    made = parse_certificate(held["tls.crt"], held["tls.key"], "tls.crt", "tls.key")
    return held["ca.crt"] == authority["ca.crt"] and trusts(held, HOSTS[0], made.not_before)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr that is no log line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "PRIVATE" not in captured.err
    [line] = [line for line in captured.err.splitlines() if line.startswith("pingpong: ")]
    return line


def test_the_first_run_makes_both_and_the_second_changes_nothing(
    api: ApiServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert written(api) == [Request("create", AUTHORITY), Request("create", CERTIFICATE)]
    assert set(api.data(AUTHORITY)) == {"ca.crt", "ca.key"}
    assert set(api.data(CERTIFICATE)) == {"tls.crt", "tls.key", "ca.crt"}
    assert fits(api)
    for name in BOTH:
        assert api.secrets[name]["type"] == "Opaque"
        assert api.secrets[name]["metadata"]["labels"] == {
            "app.kubernetes.io/managed-by": "pingpong"
        }
    api.requests.clear()
    before = dict(api.secrets)
    assert run() == 0
    assert api.secrets == before
    assert api.requests == [Request("get", AUTHORITY), Request("get", CERTIFICATE)]
    logs = capsys.readouterr().err
    events = ("authority_made", "certificate_issued", "certificate_kept")
    assert [logs.count(f'"event": "{event}"') for event in events] == [1, 1, 1]
    assert {request.credential for request in api.requests} == {f"Bearer {TOKEN}"}
    assert "PRIVATE" not in logs


def test_other_names_are_in_a_new_certificate_of_the_same_authority(
    api: ApiServer, run: Run
) -> None:
    run()
    before = {name: api.data(name) for name in BOTH}
    assert run(hosts=[*HOSTS, "more.example"]) == 0
    assert api.data(AUTHORITY) == before[AUTHORITY]
    assert api.data(CERTIFICATE)["ca.crt"] == before[CERTIFICATE]["ca.crt"]
    assert trusts(api.data(CERTIFICATE), "more.example", datetime.now(UTC))


def test_secrets_that_are_there_and_empty_are_filled(api: ApiServer, run: Run) -> None:
    # As `kubectl apply` makes them of what `helm template` says.
    for name in BOTH:
        api.put_secret(name, {}, labels={"a": "b"})
    assert run() == 0
    assert written(api) == [Request("update", AUTHORITY), Request("update", CERTIFICATE)]
    assert fits(api)
    assert {api.secrets[name]["metadata"]["labels"]["a"] for name in BOTH} == {"b"}


def test_what_else_a_secret_has_stays(api: ApiServer, run: Run) -> None:
    api.put_secret(CERTIFICATE, {"other": b"1", "tls.crt": b"nonsense"}, annotations={"c": "d"})
    assert run() == 0
    assert api.data(CERTIFICATE)["other"] == b"1"
    assert api.secrets[CERTIFICATE]["metadata"]["annotations"] == {"c": "d"}
    assert fits(api)


def test_a_damaged_authority_is_left_for_a_person_to_decide(
    api: ApiServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    data = {**api.data(AUTHORITY), "ca.key": make_certificate(["a"], NOW).key_pem()}
    api.put_secret(AUTHORITY, data)
    api.requests.clear()
    assert run() == 1
    assert written(api) == []
    assert api.data(AUTHORITY) == data
    said = complaint(capsys)
    assert f"the Secret {AUTHORITY} in the namespace testing cannot be used: the key in" in said
    assert "restore it, or delete it" in said


@pytest.mark.parametrize(
    ("status", "verb", "said"),
    [
        (403, "get", f"cannot get the Secret {AUTHORITY} in the namespace testing: the service"),
        (403, "create", "add a Role that allows it to create secrets"),
        (401, "get", "the API server does not accept the credentials"),
        (404, "create", "there is no namespace testing"),
        (500, "create", "the API server answered 500"),
        (422, "create", "the API server answered 422"),
    ],
)
def test_an_api_server_that_refuses(
    api: ApiServer, run: Run, capsys: pytest.CaptureFixture[str], status: int, verb: str, said: str
) -> None:
    api.instead = lambda request: status if request.verb == verb else None
    assert run() == 1
    assert said in complaint(capsys)
    assert api.secrets == {}


def test_who_may_not_write_is_told_which_secret(
    api: ApiServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    api.instead = lambda request: 403 if request.verb == "update" else None
    before = dict(api.secrets)
    assert run(hosts=["other.example"]) == 1
    assert f"cannot update the Secret {CERTIFICATE}" in complaint(capsys)
    assert api.secrets == before


def test_an_api_server_that_is_not_there(
    api: ApiServer, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with ApiServer() as gone:
        gone.kubeconfig(tmp_path)
    assert run() == 1
    assert "cannot connect to the API server: Connection refused" in complaint(capsys)


def test_no_cluster_at_all(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert run() == 1
    said = complaint(capsys)
    assert said.startswith("pingpong: pingpong certificate needs a Kubernetes cluster: ")
    assert "set KUBECONFIG" in said


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ([], "HOST is missing"),
        (["-"], "must have"),
        (["a.*.b"], "must have"),
        (["*"], "must have"),
        (["*.::1"], "must have"),
    ],
)
def test_names_that_cannot_be(
    run: Run, capsys: pytest.CaptureFixture[str], hosts: list[str], said: str
) -> None:
    assert run(hosts=hosts) == 2
    assert said in capsys.readouterr().err


def test_names_are_read_as_certificates_have_them() -> None:
    words = ["A.example,*.b.example", "bücher.example", "2001:DB8:0::1", "a.example"]
    assert CertificateSettings.parse(words, {}).hosts == (
        *("a.example", "*.b.example", "xn--bcher-kva.example", "2001:db8::1"),
    )


# Several at once


def test_where_another_was_first_both_are_read_again(api: ApiServer, run: Run) -> None:
    def interfere(request: Request) -> None:
        # Between reading and writing somebody else makes both.
        if request.verb == "create" and request.name == AUTHORITY:
            api.instead = as_usual
            assert run() == 0

    api.instead = interfere
    assert run() == 0
    assert Counter(request.verb for request in written(api)) == {"create": 3}
    assert fits(api)


def test_a_certificate_is_not_written_over_one_that_was_not_read(api: ApiServer, run: Run) -> None:
    run()

    def interfere(request: Request) -> None:
        if request.verb == "update":
            api.instead = as_usual
            assert run(hosts=[*HOSTS, "theirs.example"]) == 0

    api.instead = interfere
    api.requests.clear()
    assert run(hosts=[*HOSTS, "ours.example"]) == 0
    # Its first attempt came too late.
    assert written(api) == [Request("update", CERTIFICATE)] * 3
    assert fits(api)
    assert trusts(api.data(CERTIFICATE), "ours.example", datetime.now(UTC))


def test_a_secret_that_is_deleted_before_it_is_written_is_made_anew(
    api: ApiServer, run: Run
) -> None:
    run()

    def interfere(request: Request) -> None:
        if request.verb == "update":
            api.instead = as_usual
            del api.secrets[request.name]

    api.instead = interfere
    api.requests.clear()
    assert run(hosts=[*HOSTS, "more.example"]) == 0
    assert written(api) == [Request("update", CERTIFICATE), Request("create", CERTIFICATE)]
    assert fits(api)


async def test_an_authority_that_was_renewed_is_published_first_by_a_later_attempt_too(
    api: ApiServer,
) -> None:
    start = datetime.now(UTC)
    now = start + AUTHORITY_VALID - RENEW_AUTHORITY + timedelta(days=1)
    settings = CertificateSettings(hosts=tuple(HOSTS), namespace="testing")
    await keep_certificates(settings, start)
    await keep_certificates(settings, now - CERTIFICATE_VALID + timedelta(days=10))
    before = api.data(CERTIFICATE)

    def interfere(request: Request) -> int | None:
        # Somebody else writes it, after the authority was renewed.
        if request != Request("update", CERTIFICATE):
            return None
        api.instead = as_usual
        return 409

    api.instead = interfere
    await keep_certificates(settings, now)
    after = api.data(CERTIFICATE)
    assert after["ca.crt"] == api.data(AUTHORITY)["ca.crt"] != before["ca.crt"]
    assert after["tls.crt"] == before["tls.crt"]


def test_who_is_never_first_gives_up(
    api: ApiServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.instead = lambda request: 409 if request.verb == "create" else None
    assert run() == 1
    said = complaint(capsys)
    assert f"the Secrets {AUTHORITY} and {CERTIFICATE} were changed by others" in said
    assert len(written(api)) == 10


async def test_many_at_once_end_with_one_authority_and_what_it_has_signed(api: ApiServer) -> None:
    hosts = ((*HOSTS, f"{number % 2}.example") for number in range(8))
    runs = [CertificateSettings(hosts=names, namespace="testing") for names in hosts]
    await asyncio.gather(*(keep_certificates(settings, datetime.now(UTC)) for settings in runs))
    assert fits(api)
    # The authority was made once.
    assert sum(request == Request("update", AUTHORITY) for request in api.requests) == 0
