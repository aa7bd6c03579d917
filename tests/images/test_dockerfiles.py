"""What the Dockerfiles say, without a container engine; tests/e2e/test_images.py builds them."""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import pytest

import pingpong
from pingpong import __main__
from pingpong.settings import ProbeSettings, ServeSettings
from tests.images.dockerfiles import ROOT, SERVICES, Dockerfile, is_sent, path_of, read

BASE = "python:3.13-slim-trixie"
VERBS = {"server": "serve", "client": "probe"}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(service: str) -> Dockerfile:
    return read(service)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def runs(file: Dockerfile, *stages: str) -> str:
    return "\n".join(each.text for name in stages for each in file.stages[name].all("RUN"))


def test_every_stage_comes_of_the_one_base_image(file: Dockerfile) -> None:
    assert file.arguments == {"PYTHON_IMAGE": BASE}
    names: list[str] = []
    for stage in file.stages.values():
        assert stage.base == "${PYTHON_IMAGE}" or stage.base in names
        names.append(stage.name)


def test_the_last_stage_is_what_is_built_unless_another_is_asked_for(file: Dockerfile) -> None:
    assert list(file.stages)[-1] == "runtime"
    assert "dev" in file.stages


def test_it_needs_neither_buildkit_nor_a_registry_for_its_syntax(
    service: str, file: Dockerfile
) -> None:
    text = path_of(service).read_text()
    assert not re.search(r"^#\s*(syntax|escape|check)\s*=", text, re.M)
    assert "<<" not in text
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "RUN", "USER", "WORKDIR"}
    for stage in file.stages.values():
        for each in stage.instructions:
            assert each.keyword in known  # among which is no ADD, which fetches and unpacks
            assert set(each.flags) <= {"from", "chown"}
            assert "from" not in each.flags or each.flags["from"] in file.stages


@pytest.mark.parametrize("stage", ["runtime", "dev"])
def test_it_runs_as_a_numeric_user_with_the_program_as_first_process(
    service: str, file: Dockerfile, stage: str
) -> None:
    assert file.last(stage, "USER").text == "65532:65532"
    assert file.last(stage, "WORKDIR").text == "/"
    entrypoint, cmd = file.last(stage, "ENTRYPOINT"), file.last(stage, "CMD")
    assert entrypoint.text[0] == cmd.text[0] == "["  # no shell, which would keep SIGTERM to itself
    assert entrypoint.words[-3:] == ["/opt/pingpong/venv/bin/python", "-m", "pingpong"]
    assert cmd.words == [VERBS[service]]
    assert cmd.words[0] in __main__.VERBS


def test_what_is_developed_in_is_started_by_what_watches_its_files(file: Dockerfile) -> None:
    words = file.last("dev", "ENTRYPOINT").words
    assert words[:3] == [
        "/opt/pingpong/reload/bin/python",
        "/opt/pingpong/reload/reload.py",
        "/opt/pingpong/src",
    ]
    [source] = [each for each in file.stages["dev"].all("COPY") if each.flags["from"] == "source"]
    assert source.flags["chown"] == file.last("dev", "USER").text
    assert source.words[-1] == "/opt/pingpong/src"


def test_the_ports_are_the_settings_defaults(service: str, file: Dockerfile) -> None:
    fields = (ServeSettings if service == "server" else ProbeSettings).model_fields
    ports = [f"{fields['admin_port'].default}/tcp"]
    if service == "server":
        ports.insert(0, f"{fields['bind_port'].default}/udp")
    assert file.last("runtime", "EXPOSE").words == ports


def test_what_is_copied_is_there_and_is_sent_to_the_engine(file: Dockerfile) -> None:
    for stage in file.stages.values():
        for each in stage.all("COPY"):
            *sources, _ = each.words
            assert "." not in sources
            for source in sources if "from" not in each.flags else []:
                path = ROOT / source
                assert path.exists(), source
                folder = [*path.rglob("*.py"), *path.glob("src/*.rs")]
                files = [path] if path.is_file() else folder
                assert files
                for one in files:
                    assert is_sent(str(one.relative_to(ROOT))), one


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        ".git/config",
        ".venv/bin/python",
        ".ci/run",
        "charts/pingpong/values.yaml",
        "dist/pingpong.whl",
        "services/pingpong/__pycache__/ping.cpython-313.pyc",
        "services/pingpong/server/ping.pyc",
        "services/engine/target/release/libpingpong_engine.rlib",
        "services/server.key",
        "services/pingpong/server/tls.pem",
        "tests/conftest.py",
        "tests/services/x.py",
        "tools/docs_tables.py",
        "tools/__pycache__/reload.cpython-313.pyc",
        "token",
    ],
)
def test_nothing_else_is_sent_to_the_engine(path: str) -> None:
    assert not is_sent(path)


def test_a_changed_line_of_the_source_changes_the_last_layer_only(file: Dockerfile) -> None:
    copies = [each for each in file.chain("runtime") if each.keyword in ("COPY", "RUN")]
    assert [each.flags.get("from") for each in copies] == [None, "dependencies", "source"]
    for name in ("interpreter", "requirements", "dependencies"):
        for each in file.stages[name].all("COPY"):
            assert not any(word.startswith("services") for word in each.words)
    # Nor does another line of pyproject.toml install anything.
    texts = [each.text for each in file.stages["dependencies"].all("COPY")]
    assert texts == [
        "constraints.txt /build/",
        "/build/requirements.txt /build/",
        "/build/wheels /build/wheels",
    ]


@pytest.mark.process
def test_exactly_what_the_service_needs_is_installed_at_exact_versions(
    service: str, file: Dockerfile, project: dict[str, Any]
) -> None:
    [run] = file.stages["requirements"].all("RUN")
    command, _, target = run.text.partition(" > ")
    assert target.strip() == "/build/requirements.txt"
    python, option, code = shlex.split(command)
    assert (python, option) == ("python", "-c")
    code = code.replace("/build/pyproject.toml", str(ROOT / "pyproject.toml"))
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    extras = project["optional-dependencies"]
    assert made.stdout.splitlines() == [*project["dependencies"], *extras[service]]
    installs = re.findall(r"pip [^&]*? install ([^&\n]*)", runs(file, "dependencies"))
    [install, engine] = [" ".join(each.split()) for each in installs]
    for option in (
        "--requirement /build/requirements.txt",
        "--constraint /build/constraints.txt",
        "--no-cache-dir",
        "--only-binary :all:",
    ):
        assert option in install
    # From what the stage before made, and never another of that name.
    for option in ("--no-index", "--find-links /build/wheels", "--no-deps", "--no-cache-dir"):
        assert option in engine


def test_the_engine_quinn_is_built_with_the_crates_that_are_pinned(file: Dockerfile) -> None:
    crate = ROOT / "services" / "engine"
    maturin = tomllib.loads((crate / "pyproject.toml").read_text())["tool"]["maturin"]
    assert maturin["locked"] is True
    assert (crate / "Cargo.lock").exists()
    # Not with a newer Rust than the base image's Debian has.
    cargo = tomllib.loads((crate / "Cargo.toml").read_text())["package"]
    assert cargo["rust-version"] == "1.85"
    [copy] = file.stages["engine"].all("COPY")
    assert copy.words == ["services/engine", "/build/engine"]
    assert "pip wheel" in runs(file, "engine")
    # The same wheel each time: what lists its crates has no time and no random number in it.
    assert "SOURCE_DATE_EPOCH=0" in runs(file, "engine")


@pytest.mark.parametrize("stage", ["runtime", "dev"])
def test_no_compiler_is_in_an_image_that_runs(file: Dockerfile, stage: str) -> None:
    taken = {each.flags.get("from") for each in file.chain(stage) if each.keyword == "COPY"}
    assert taken == {"dependencies", "source"} | ({"reloader"} if stage == "dev" else set())
    for name in taken:
        assert not any("apt-get" in each.text for each in file.chain(str(name)))
    assert not any("apt-get" in each.text for each in file.chain(stage))


def test_byte_code_is_never_older_than_its_source(file: Dockerfile) -> None:
    for stage in ("interpreter", "dependencies", "source"):
        commands = re.split(r"&&|\n", runs(file, stage))
        compiled = [command for command in commands if "-m compileall" in command]
        assert compiled
        assert all("--invalidation-mode unchecked-hash" in command for command in compiled)
        assert "touch --no-dereference --date @0" in runs(file, stage)
    # Where the source changes, byte code is held against it.
    assert '"--invalidation-mode", "checked-hash"' in runs(file, "dev")
    for stage in ("runtime", "dev"):
        environment = [e.text for e in file.chain(stage) if e.keyword == "ENV"]
        assert "PYTHONDONTWRITEBYTECODE=1" in " ".join(environment).split()


def test_labels(service: str, file: Dockerfile, project: dict[str, Any]) -> None:
    text = file.last("runtime", "LABEL").text
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', text))
    assert labels["title"] == f"pingpong-{service}"
    assert labels["description"]
    assert labels["licenses"] == project["license"]
    arguments = {each.text for each in file.stages["runtime"].all("ARG")}
    assert arguments == {f"VERSION={pingpong.__version__}", "REVISION=", "SOURCE="}
    for label in ("version", "revision", "source"):
        assert labels[label] == f"${{{label.upper()}}}"


def test_no_secret_and_no_address_is_written_into_it(service: str, file: Dockerfile) -> None:
    assert "://" not in path_of(service).read_text()
    for stage in file.stages.values():
        for each in stage.instructions:
            if each.keyword in ("ARG", "ENV", "LABEL"):
                assert not re.search(r"TOKEN|PASSW|SECRET|_KEY|INDEX_URL|PROXY", each.text, re.I)


def test_the_two_differ_only_in_what_they_are_for() -> None:
    server, client = (path_of(service).read_text().splitlines() for service in SERVICES)
    assert len(server) == len(client)
    different = [line[2:] for line in difflib.ndiff(server, client) if line.startswith("+ ")]
    expected = [
        r"# The image of pingpong's client: .*",
        r"print\(\*project\['dependencies'\], \*project\['optional-dependencies'\]\['client'\], .*",
        r"from kubernetes.aio.client import DiscoveryV1Api; .*",
        r"EXPOSE 8081/tcp",
        r'CMD \["probe"\]',
        r'CMD \["probe"\]',
        r'LABEL org.opencontainers.image.title="pingpong-client" \\',
        r" +org.opencontainers.image.description=.*",
    ]
    assert len(different) == len(expected)
    for line, pattern in zip(different, expected, strict=True):
        assert re.fullmatch(pattern, line), line
