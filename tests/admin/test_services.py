"""The admin ports of both services, as processes."""

from __future__ import annotations

import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Pair
from tests.support.processes import Process

pytestmark = pytest.mark.process

TOKEN = "a-token-of-24-characters"
SERVICES = {
    "serve": ("--bind-host=127.0.0.1", "--bind-port=0"),
    "probe": ("127.0.0.1:9",),
}


@pytest.mark.parametrize("verb", SERVICES)
def test_tls_and_a_token(verb: str, tmp_path: Path) -> None:
    """As `curl --cacert ca.pem -H "Authorization: Bearer ..."` has it."""
    authority, pair, token_file = Authority(tmp_path), Pair(tmp_path), tmp_path / "tokens"
    pair.write_in_place(authority.issue("127.0.0.1"))
    token_file.write_text(f"{TOKEN}\n")
    words = [f"--admin-{name.replace('_', '-')}={path}" for name, path in pair.settings.items()]
    bound = ("--admin-host=127.0.0.1", "--admin-port=0", "--log-format=json", *SERVICES[verb])
    with Process(verb, *bound, *words, f"--admin-token-file={token_file}") as service:
        port = service.read_event("admin_listening")["port"]
        context = ssl.create_default_context(cafile=authority.file)

        def get(path: str, **headers: str) -> tuple[int, str]:
            request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, context=context, timeout=30) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        assert get("/livez") == (200, "ok\n")
        assert get("/metrics")[0] == 401
        status, text = get("/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        assert "# TYPE " in text
        status, text = get("/config", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        assert str(token_file) in text
        assert TOKEN not in text


@pytest.mark.parametrize("verb", SERVICES)
def test_a_file_that_is_missing_is_told_in_a_line(verb: str, tmp_path: Path) -> None:
    missing = f"--admin-token-file={tmp_path / 'none'}"
    bound = ("--admin-host=127.0.0.1", "--admin-port=0", *SERVICES[verb])
    with Process(verb, *bound, missing) as service:
        status, _, err = service.finish()
    assert status != 0
    assert "cannot read the token file" in err
    assert "--admin-token-file" in err
    assert "Traceback" not in err


def test_ping_does_without_the_http_server() -> None:
    code = (
        "import sys; from pingpong.__main__ import main\n"
        "try: main(['ping', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('aiohttp' in sys.modules)"
    )
    path = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=path, check=True, stdout=subprocess.DEVNULL)
