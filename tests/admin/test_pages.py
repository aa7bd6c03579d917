from __future__ import annotations

import gzip
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pingpong.admin import AdminError
from pingpong.settings import ServiceSettings
from pingpong.telemetry.health import Result
from tests.admin.asking import ask
from tests.admin.serving import BUILD, PINGS, RTT, Service, running

PAGES = ("/", "/livez", "/readyz", "/metrics", "/version", "/config")


class Named(ServiceSettings):
    """Settings of a verb."""

    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    names: tuple[str, ...] = ()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_service_that_is_well_says_ok(path: str) -> None:
    async with running() as admin:
        answer = await ask(admin.port, path)
    assert (answer.status, answer.text) == (200, "ok\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


async def test_one_that_is_not_ready_says_why_and_stays_alive() -> None:
    service = Service()
    async with running(service) as admin:
        service.readiness = Result(False, "draining")
        service.targets = Result(False, "no target is up")
        answer = await ask(admin.port, "/readyz")
        assert (answer.status, answer.text) == (
            503,
            "self_ping: draining\ntargets: no target is up\n",
        )
        assert (await ask(admin.port, "/livez")).status == 200
        service.readiness = service.targets = Result(True)
        assert (await ask(admin.port, "/readyz")).status == 200


async def test_verbose_names_every_check_with_its_reason() -> None:
    service = Service()
    service.targets = Result(False, "no target is up")
    async with running(service) as admin:
        for target in ("/readyz?verbose", "/readyz?verbose=1&x"):
            answer = await ask(admin.port, target)
            assert answer.status == 503
            assert answer.headers["content-type"] == "application/json"
            assert json.loads(answer.body) == {
                "ok": False,
                "checks": [
                    {"name": "self_ping", "ok": True, "reason": "answered 1 s ago"},
                    {"name": "targets", "ok": False, "reason": "no target is up"},
                ],
            }
        answer = await ask(admin.port, "/livez?verbose")
        assert (answer.status, json.loads(answer.body)["ok"]) == (200, True)


async def test_what_a_peer_sent_is_printable_and_a_query_masked_on_every_page() -> None:
    service = Service()
    service.readiness = Result(False, "\x1b[2J\x9b\u202e\ud800 https://a/?s3cret\nx")
    service.targets = RuntimeError("\x1b[2J /ping?s3cret")
    shown = r"\x1b[2J\x9b\u202e\ud800 https://a/?***\nx"
    async with running(service, Named(names=("https://a/?s3cret", "\x9b\u202e", "ü"))) as admin:
        plain = (await ask(admin.port, "/readyz")).text
        verbose = (await ask(admin.port, "/readyz?verbose")).text
        config = (await ask(admin.port, "/config")).text
    for page in (plain, verbose, config):
        assert all(line.isprintable() for line in page.splitlines())
        assert "s3cret" not in page
    assert f"self_ping: {shown}" in plain
    assert json.loads(verbose)["checks"][0]["reason"] == shown
    assert json.loads(config)["names"] == ["https://a/?***", r"\x9b\u202e", "ü"]


async def test_a_check_that_raises_is_a_503_with_its_name(
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    service = Service()
    service.targets = LookupError("where are they")
    async with running(service) as admin:
        answer = await ask(admin.port, "/readyz")
        assert answer.status == 503
        assert answer.text == "targets: the check itself failed: LookupError: where are they\n"
        service.targets = Result(True)
        assert (await ask(admin.port, "/readyz")).status == 200
    raised = [event for event in logs() if event["event"] == "check_raised"]
    assert [event["check"] for event in raised] == ["targets"]


async def test_metrics_are_text_for_who_asks_for_nothing() -> None:
    async with running() as admin:
        answer = await ask(admin.port, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert "content-encoding" not in answer.headers
    assert 'x_pings_total{target="a"} 3.0' in answer.text.splitlines()
    names = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
    assert {PINGS.name, RTT.name, BUILD.name, "process_open_fds", "python_info"} < names


async def test_metrics_are_openmetrics_for_who_asks_for_them() -> None:
    async with running() as admin:
        answer = await ask(admin.port, "/metrics", accept="application/openmetrics-text")
    media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["content-type"] == media_type
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.0", False),
     ("identity", False), ("*", False)],
)  # fmt: skip
async def test_metrics_are_compressed_for_who_takes_it(accepted: str, compressed: bool) -> None:
    async with running() as admin:
        answer = await ask(admin.port, "/metrics", Accept_Encoding=accepted)
    assert answer.headers.get("content-encoding") == ("gzip" if compressed else None)
    body = gzip.decompress(answer.body) if compressed else answer.body
    assert b'x_pings_total{target="a"} 3.0\n' in body


@pytest.mark.promtool
async def test_promtool_finds_nothing_to_complain_about(promtool: Path) -> None:
    async with running() as admin:
        text = (await ask(admin.port, "/metrics")).text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_metrics_that_cannot_be_had_are_a_500_and_the_rest_goes_on(
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    service = Service()
    service.failure = LookupError("worker 2 is silent")
    async with running(service) as admin:
        answer = await ask(admin.port, "/metrics")
        assert answer.status == 500
        assert answer.text == "/metrics failed: LookupError: worker 2 is silent\n"
        assert (await ask(admin.port, "/livez")).status == 200
        service.failure = None
        assert (await ask(admin.port, "/metrics")).status == 200
    assert [event["path"] for event in logs() if event["event"] == "page_failed"] == ["/metrics"]


@pytest.mark.process
async def test_version_and_settings_are_json() -> None:
    async with running() as admin:
        version = await ask(admin.port, "/version")
        config = await ask(admin.port, "/config")
    assert version.headers["content-type"] == config.headers["content-type"] == "application/json"
    assert json.loads(version.body) == {"version": "1.0", "python": "3.11"}
    assert json.loads(config.body)["admin_host"] == "127.0.0.1"


async def test_the_first_page_leads_to_the_others() -> None:
    async with running() as admin:
        answer = await ask(admin.port, "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for page in PAGES[1:]:
        assert f'<a href="{page}">' in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/readyz?verbose"])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with running() as admin:
        get, head = await ask(admin.port, path), await ask(admin.port, path, "HEAD")
    assert head.status == get.status == 200
    assert head.body == b""
    changing = {"date", "content-length"} if path == "/metrics" else {"date"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_other_methods_are_a_405(method: str) -> None:
    async with running() as admin:
        answer = await ask(admin.port, "/metrics", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.text == "only GET and HEAD are allowed\n"


@pytest.mark.parametrize("path", ["/healthz", "/livez/", "//livez", "/Livez"])
async def test_other_pages_are_a_404_that_names_those_there_are(path: str) -> None:
    async with running() as admin:
        answer = await ask(admin.port, path)
    assert answer.status == 404
    assert answer.text == f"no such page; there are: {' '.join(PAGES)}\n"


async def test_the_port_that_was_taken_is_known_and_logged(
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    async with running() as admin:
        assert admin.port > 0
    (event,) = logs()
    assert (event["event"], event["host"], event["port"], event["scheme"]) == (
        "admin_listening", "127.0.0.1", admin.port, "http",
    )  # fmt: skip


async def test_no_answer_says_a_version() -> None:
    async with running() as admin:
        for path in ("/", "/none"):
            assert (await ask(admin.port, path)).headers["server"] == "pingpong"


async def test_a_port_in_use_is_told_in_a_line() -> None:
    async with running() as admin:
        with pytest.raises(AdminError) as raised:
            async with running(
                settings=ServiceSettings(admin_host="127.0.0.1", admin_port=admin.port)
            ):
                pass
    assert str(raised.value) == (
        f"cannot listen for HTTP on 127.0.0.1 port {admin.port}: the port is in use; set"
        " --admin-port (PINGPONG_ADMIN_PORT) to another one (0: any)"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.name.invalid"])
async def test_an_address_that_is_not_of_this_machine_is_told_in_a_line(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*args: object, **options: object) -> Any:
        if host.endswith("invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(AdminError, match="PINGPONG_ADMIN_HOST") as raised:
        async with running(settings=ServiceSettings(admin_host=host, admin_port=0)):
            pass
    assert "\n" not in str(raised.value)
    assert host in str(raised.value)


async def test_a_port_that_is_not_allowed_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def create_server(*args: object, **options: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", create_server)
    with pytest.raises(
        AdminError, match=r"set --admin-port \(PINGPONG_ADMIN_PORT\) to one above 1023"
    ):
        async with running(settings=ServiceSettings(admin_port=80)):
            pass
