"""Which QUIC engine is used, which modules it needs, and what is said where it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, rsa

from pingpong.server.tls.keeper import CertificateFiles
from pingpong.webtransport import ConnectionHandler
from pingpong.webtransport.asyncio import (
    Certificate,
    CertificateError,
    Engine,
    KeyLimits,
    check_certificate,
    choose_engine,
    connect,
    engine_lacks,
    listen,
)
from pingpong.webtransport.quic import engines
from pingpong.webtransport.quic.config import EndpointConfig, Windows
from tests.support.certificates import self_signed
from tests.support.processes import SERVICES, environment, run, serving

_MISSING = """
import sys
sys.modules["pingpong_engine"] = {instead}
from pingpong.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
_OLD = "type(sys)('pingpong_engine')\nsys.modules['pingpong_engine'].__version__ = '0.0.1'"
_MODULES = """
import atexit, sys
from pingpong.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print("modules", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def without_quinn(instead: str, *words: str) -> tuple[int, str]:
    """Run `pingpong` with something `instead` of the engine quinn: exit status and stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", _MISSING.format(instead=instead), *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stderr


@pytest.mark.process
@pytest.mark.parametrize("verb", [("ping", "127.0.0.1"), ("serve",), ("probe", "a.test"), ("run",)])
def test_an_engine_that_is_not_there_is_named_with_how_to_build_it(verb: tuple[str, ...]) -> None:
    status, said = without_quinn("None", *verb, "--engine", "quinn")
    assert status == 2
    assert said == (
        "pingpong: --engine (PINGPONG_ENGINE): the engine quinn is not installed: build it with"
        " `make engine`, which needs Rust (cargo 1.85 or newer), or choose aioquic\n"
        f"pingpong: see `pingpong {verb[0]} --help`\n"
    )


@pytest.mark.process
def test_an_engine_of_another_version_is_not_used() -> None:
    status, said = without_quinn(_OLD, "ping", "127.0.0.1", "--engine=quinn")
    assert status == 2
    assert "the engine quinn is version 0.0.1, not " in said


@pytest.mark.process
@pytest.mark.parametrize("verb", [("ping", "127.0.0.1"), ("serve",), ("probe", "a.test"), ("run",)])
def test_no_such_engine(verb: tuple[str, ...]) -> None:
    status, _, said = run(*verb, "--engine=nonsense")
    assert status == 2
    first, _ = said.splitlines()
    assert first == "pingpong: --engine nonsense (PINGPONG_ENGINE): must be auto, aioquic or quinn"


@pytest.mark.process
def test_auto_without_quinn_is_aioquic() -> None:
    with serving() as (_, words):
        status, said = without_quinn("None", *words, "-c", "1", "--json")
    assert (status, said) == (0, "")


def test_the_version_is_that_of_the_crate() -> None:
    """So that an engine that was built before is not used: raise it with each change of its calls."""
    crate = tomllib.loads((SERVICES / "engine" / "Cargo.toml").read_text())
    assert crate["package"]["version"] == engines.QUINN_VERSION


def test_auto_means_quinn_for_clients_only() -> None:
    assert choose_engine(server=True) == "aioquic"
    installed: Engine = "quinn" if engines.is_installed("quinn") else "aioquic"
    assert choose_engine(server=False) == installed
    assert choose_engine("aioquic", server=False) == "aioquic"


def test_what_an_engine_lacks() -> None:
    assert engine_lacks("aioquic") == []
    assert "RESET_STREAM_AT" in engine_lacks("quinn")


@pytest.mark.quinn
def test_what_an_engine_cannot_honour_is_refused() -> None:
    config = EndpointConfig(engine="quinn", key_limits=KeyLimits(update_after=10))
    with pytest.raises(ValueError, match="key_limits"):
        engines.make_endpoint(config, lambda: None)


def certificate_of(key: ed448.Ed448PrivateKey | rsa.RSAPrivateKey) -> Certificate:
    name = x509.Name([])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
    )
    algorithm = hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None
    return Certificate(builder.sign(key, algorithm), (), key)


@pytest.mark.quinn
async def test_keys_that_an_engine_cannot_use_are_refused(tmp_path: Path) -> None:
    for kind in (ed448.Ed448PrivateKey.generate(), rsa.generate_private_key(65_537, 1024)):
        made = certificate_of(kind)
        check_certificate(made)
        check_certificate(made, "aioquic")
        with pytest.raises(CertificateError, match="the engine quinn cannot use the key"):
            check_certificate(made, "quinn")
        with pytest.raises(CertificateError, match="or choose aioquic"):
            listen(ConnectionHandler(), "127.0.0.1", config=EndpointConfig(made, engine="quinn"))
        (tmp_path / "both.pem").write_bytes(made.private_pem())
        files = tmp_path / "both.pem", tmp_path / "both.pem"
        CertificateFiles(*files, datetime.now(UTC))
        with pytest.raises(CertificateError, match=r"both\.pem: the engine quinn"):
            CertificateFiles(*files, datetime.now(UTC), "quinn")


@pytest.mark.process
def test_what_is_left_of_an_engine_is_not_used() -> None:
    """A folder with nothing in it can be imported."""
    status, said = without_quinn("type(sys)('pingpong_engine')", "ping", "::", "--engine=quinn")
    assert status == 2
    assert "the engine quinn is version unknown, not " in said


@pytest.mark.quinn
def test_auto_means_the_engine_that_can_honour_the_configuration() -> None:
    for limits, engine in ((KeyLimits(), "Quinn"), (KeyLimits(update_after=10), "Aioquic")):
        end = engines.make_endpoint(EndpointConfig(key_limits=limits), lambda: None)
        assert type(end).__name__ == f"{engine}Endpoint"


@pytest.mark.quinn
@pytest.mark.process
def test_a_host_that_is_no_name_of_tls_is_one_that_does_not_answer() -> None:
    ran = [
        run("ping", "127.1:9", "--insecure", f"--engine={engine}", "-c1")
        for engine in ("aioquic", "quinn")
    ]
    assert ran[0] == ran[1]
    assert ran[0][0] == 2
    assert "unreachable" in "".join(ran[0][1:])


@pytest.mark.parametrize("engine", ["Quinn", "", None])
async def test_an_engine_that_there_is_not_is_a_wrong_argument(engine: Any) -> None:
    config = EndpointConfig(engine=engine, certificate=self_signed())
    with pytest.raises(ValueError, match="engine must be auto, aioquic or quinn, not "):
        connect("https://127.0.0.1:1/", config=EndpointConfig(engine=engine))
    with pytest.raises(ValueError, match="engine must be"):
        listen(ConnectionHandler(), "127.0.0.1", config=config)


@pytest.mark.parametrize("number", [-1, float("inf"), 0, 1e12, float("nan")])
def test_a_time_that_no_engine_can_use_is_a_wrong_argument(number: float) -> None:
    with pytest.raises(ValueError, match="idle_timeout must be above 0"):
        EndpointConfig(idle_timeout=number)


def test_numbers_that_no_engine_can_use_are_wrong_arguments() -> None:
    for name in ("connection", "stream", "streams_bidi", "streams_uni"):
        for number in (-1, 1 << 40):
            with pytest.raises(ValueError, match=f"the window {name} must be from 0 to"):
                Windows(**{name: number})
    with pytest.raises(ValueError, match="max_handshakes must not be below 0"):
        EndpointConfig(max_handshakes=-1)


async def test_a_missing_engine_is_known_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(choice: str, *, server: bool) -> Engine:
        raise engines.EngineMissingError("not here")

    monkeypatch.setattr("pingpong.webtransport.asyncio.connecting.choose", missing)
    with pytest.raises(engines.EngineMissingError, match="not here"):
        connect("https://127.0.0.1:1/")


@pytest.mark.quinn
@pytest.mark.process
def test_the_log_says_which_engine_is_used_and_what_it_lacks() -> None:
    with serving("--engine=quinn") as (server, words):
        event = server.read_event("engine_limited")
        assert event["engine"] == "quinn"
        assert event["lacks"] == engine_lacks("quinn")
        for engine in ("aioquic", "quinn"):
            status, out, said = run(*words, f"--engine={engine}", "-c", "2", "-i", "0.1", "--json")
            assert (status, said) == (0, "")
            assert json.loads(out.splitlines()[-1])["received"] == 2


@pytest.mark.quinn
@pytest.mark.process
@pytest.mark.parametrize("used", ["aioquic", "quinn"])
def test_only_the_engine_that_is_used_is_imported(used: Literal["aioquic", "quinn"]) -> None:
    unused = {"aioquic": "pingpong_engine", "quinn": "aioquic"}[used]
    with serving(f"--engine={used}") as (server, words):
        asked = [sys.executable, "-c", _MODULES, *words, "-c1", "--json", f"--engine={used}"]
        client = subprocess.run(
            asked, capture_output=True, text=True, env=environment(), timeout=60, check=True
        )
        maps = f"/proc/{server.popen.pid}/maps"
        with open(maps) as file:
            mapped = file.read()
    modules = client.stdout.splitlines()[-1].split()
    assert unused not in modules
    # Each has a shared library of its own.
    library = {"aioquic": "/aioquic/", "quinn": "pingpong_engine"}
    assert library[used] in mapped
    assert library["quinn" if used == "aioquic" else "aioquic"] not in mapped
