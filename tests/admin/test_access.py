"""Authentication on the admin port."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pingpong.admin import Admin, AdminError
from pingpong.settings import ServiceSettings
from pingpong.telemetry.health import Result
from tests.admin.asking import Answer, ask
from tests.admin.serving import Service, running

TOKEN = "a-token-of-24-characters"
PASSWORD = "pass:word # of 24 letters, ü"
PAGES = ("/", "/metrics", "/version", "/config", "/livez?verbose", "/readyz?verbose", "/none")

Logs = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# Prometheus\n{TOKEN}\nanother-token-0123456789\n")
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(f"# people\nalice:{PASSWORD}\nbob:another-password-0123456789\n")
    return path


def basic(login: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(login.encode()).decode()}"


async def get(admin: Admin, path: str, authorization: str = "", method: str = "GET") -> Answer:
    headers: dict[str, Any] = {"Authorization": authorization} if authorization else {}
    return await ask(admin.port, path, method, **headers)


async def test_a_token_is_asked_for_but_for_health(token_file: Path) -> None:
    async with running(admin_token_file=token_file) as admin:
        for path in PAGES:
            answer = await get(admin, path)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="pingpong"'
            assert answer.text == (
                "authentication required: send a token (Authorization: Bearer TOKEN)\n"
            )
            status = (await get(admin, path, f"Bearer {TOKEN}")).status
            assert status == (404 if path == "/none" else 200)
            assert (await get(admin, path, f"bearer  {TOKEN}")).status == status
        for path in ("/livez", "/readyz"):
            assert (await get(admin, path)).text == "ok\n"


async def test_user_and_password_are_asked_for(password_file: Path) -> None:
    async with running(admin_basic_auth_file=password_file) as admin:
        answer = await get(admin, "/config")
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="pingpong", charset="UTF-8"'
        for login in (f"alice:{PASSWORD}", "bob:another-password-0123456789"):
            assert (await get(admin, "/config", basic(login))).status == 200
            assert (await get(admin, "/config", basic(login, "BASIC"))).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN} x", TOKEN, f"Token {TOKEN}",
        f"Basic {TOKEN}", basic(TOKEN), "Basic", "Basic ?", "Basic YWxpY2U", basic("alice"),
        basic("alice:"), basic(f"bob:{PASSWORD}"), basic(f"alice:{PASSWORD}\n"),
        basic(f"Alice:{PASSWORD}"), f"Bearer alice:{PASSWORD}", "Bearer \xff",
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused(
    authorization: str, token_file: Path, password_file: Path
) -> None:
    async with running(admin_token_file=token_file, admin_basic_auth_file=password_file) as admin:
        answer = await ask(
            admin.port, "/metrics", Authorization=authorization.encode().decode("latin-1")
        )
        assert answer.status == 401
        assert TOKEN not in answer.text


async def test_with_both_either_is_enough(token_file: Path, password_file: Path) -> None:
    async with running(admin_token_file=token_file, admin_basic_auth_file=password_file) as admin:
        challenges = (await get(admin, "/metrics")).headers["www-authenticate"].splitlines()
        assert [challenge.partition(" ")[0] for challenge in challenges] == ["Bearer", "Basic"]
        assert (await get(admin, "/metrics", f"Bearer {TOKEN}")).status == 200
        assert (await get(admin, "/metrics", basic(f"alice:{PASSWORD}"))).status == 200


async def test_without_authentication_failed_checks_have_no_reasons(token_file: Path) -> None:
    service = Service()
    service.targets = Result(False, "no target is up: https://secret.example")
    async with running(service, admin_token_file=token_file) as admin:
        answer = await get(admin, "/readyz")
        assert (answer.status, answer.text) == (503, "targets failed\n")
        answer = await get(admin, "/readyz", f"Bearer {TOKEN}")
        assert "no target is up" in answer.text


async def test_files_are_read_again(token_file: Path, logs: Logs) -> None:
    async with running(admin_token_file=token_file) as admin:
        token_file.write_text("a-new-token-0123456789")
        admin.check_files()
        assert (await get(admin, "/metrics", f"Bearer {TOKEN}")).status == 401
        token_file.write_text("not a token")
        admin.check_files()
        admin.check_files()
        assert (await get(admin, "/metrics", "Bearer a-new-token-0123456789")).status == 200
    events = [event["event"] for event in logs() if event["event"].startswith("token")]
    assert events == ["tokens_loaded", "tokens_loaded", "token_file_unusable"]


@pytest.mark.parametrize(
    ("option", "text", "error"),
    [
        ("admin_token_file", None, "cannot read the token file"),
        ("admin_token_file", "two words", "line 1 is not a token"),
        ("admin_basic_auth_file", None, "cannot read the password file"),
        ("admin_basic_auth_file", "# none\n\n", "it holds no password"),
        ("admin_basic_auth_file", "alice", "line 1 is not user:password"),
        ("admin_basic_auth_file", "\nalice:", "line 2 is not user:password"),
        ("admin_basic_auth_file", ":s3cret", "line 1 is not user:password"),
    ],
)
async def test_a_file_that_cannot_be_used_is_an_error_at_the_start(
    option: str, text: str | None, error: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AdminError, match=error) as raised:
        async with running(settings=ServiceSettings.model_validate({option: path})):
            pass
    assert str(raised.value).startswith(f"--{option.replace('_', '-')} (PINGPONG_")
    assert "s3cret" not in str(raised.value)


async def test_a_short_password_is_warned_about(password_file: Path, logs: Logs) -> None:
    password_file.write_text("alice:" + "x" * 15 + "\nbob:" + "x" * 16 + "\n")
    async with running(admin_basic_auth_file=password_file):
        pass
    [short] = [event for event in logs() if event["event"] == "passwords_short"]
    assert short["lines"] == [1]


async def test_authentication_in_clear_is_warned_about(token_file: Path, logs: Logs) -> None:
    async with running():
        assert "admin_authentication_in_clear" not in [event["event"] for event in logs()]
    async with running(admin_token_file=token_file):
        [warning] = [e for e in logs() if e["event"] == "admin_authentication_in_clear"]
        assert "PINGPONG_ADMIN_TLS_CERT_FILE" in warning["warning"]
