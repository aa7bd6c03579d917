"""The images as docker builds and runs them, without a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pingpong
from tests.e2e import machine
from tests.e2e.conftest import Report
from tests.e2e.containers import Container, Docker, removing
from tests.e2e.layers import BYTE_CODE, File, layers
from tests.e2e.waiting import Stopwatch, eventually
from tests.images.dockerfiles import ROOT, SERVICES, is_sent, read
from tests.images.extras import ASKING, installed, named

pytestmark = pytest.mark.e2e

TAG = "images-test"
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
WORDS = {"server": ("serve",), "client": ("probe", "localhost")}
READY_WITHIN = 1.5
"""Seconds, on one CPU."""
LARGEST = {"server": 165e6, "client": 175e6}
"""Bytes that an image may have above the one that it is based on."""
PING = ("ping", "https://localhost:4433/ping", "--insecure", "-c", "2", "-i", "0.1")
Start = Callable[..., Container]


@pytest.fixture(scope="module")
def docker() -> Docker:
    try:
        return Docker(machine.prepare(os.environ))
    except machine.MachineError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def images(docker: Docker) -> Iterator[dict[str, str]]:
    """Both images, by service."""
    with removing(docker) as names:
        found = {service: docker.build(service, TAG) for service in SERVICES}
        names += found.values()
        yield found


@pytest.fixture
def start(docker: Docker) -> Iterator[Start]:
    """Starts containers; they go in the end."""
    names: list[str] = []

    def start(image: str, *words: str, options: tuple[str, ...] = HARDENED) -> Container:
        exposed = docker.inspect(image)["Config"]["ExposedPorts"]
        admin = next(port for port in exposed if port.endswith("/tcp"))
        published = f"--publish=127.0.0.1::{admin}"
        names.append(docker("run", "--detach", published, *options, image, *words).strip())
        return Container(docker, names[-1])

    yield start
    if names:
        docker("rm", "--force", "--volumes", *names)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_from_start_to_ready_on_one_cpu(
    images: dict[str, str], service: str, start: Start, report: Report
) -> None:
    # What else this machine does delays all that runs on it, but not three times in turn.
    seconds = []
    for _ in range(3):
        container = start(images[service], *WORDS[service], options=(*HARDENED, "--cpus=1"))
        seconds.append(container.wait_ready())
        container.stop()
    report(f"{service}: start to ready", min(seconds))
    assert min(seconds) < READY_WITHIN, seconds


def test_it_answers_with_a_read_only_file_system_without_rights_and_without_a_shell(
    docker: Docker, images: dict[str, str], start: Start
) -> None:
    shells = [f"--volume=/dev/null:/usr/bin/{name}:ro" for name in ("dash", "bash")]
    server = start(images["server"], options=(*HARDENED, *shells))
    server.wait_ready()
    assert not server.execute("sh", "-c", "true").ok
    status = server.execute("cat", "/proc/1/status").output
    assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.M)
    assert re.search(r"^Gid:\t65532\t65532\t65532\t65532$", status, re.M)
    assert re.search(r"^CapEff:\t0+$", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    assert server.execute("cat", "/proc/1/cmdline").output.split("\0")[1:4] == [
        *("-m", "pingpong", "serve")
    ]
    in_server = server.execute("pingpong", *PING)
    assert in_server.ok, in_server.output
    assert "2 sent, 2 received" in in_server.output
    beside = docker.attempt(
        *("run", "--rm", f"--network=container:{server.name}", *HARDENED, images["client"], *PING)
    )
    assert beside.ok, beside.output


@pytest.mark.parametrize("engine", ["aioquic", "quinn"])
def test_it_has_either_engine(
    docker: Docker, images: dict[str, str], start: Start, engine: str
) -> None:
    server = start(images["server"], "serve", f"--engine={engine}")
    server.wait_ready()
    other = {"aioquic": "quinn", "quinn": "aioquic"}[engine]
    for words in (f"--engine={engine}", f"--engine={other}"):
        said = docker.attempt(
            *("run", "--rm", f"--network=container:{server.name}", *HARDENED),
            *(images["client"], *PING, words),
        )
        assert said.ok, said.output
        assert "2 sent, 2 received" in said.output


def test_nothing_is_written(
    docker: Docker, images: dict[str, str], service: str, start: Start
) -> None:
    container = start(images[service], *WORDS[service], options=("--cap-drop=ALL",))
    container.wait_ready()
    modules = container.execute(
        *("python", "-c", "import pingpong.run, kubernetes.aio, pingpong_engine")
    )
    assert modules.ok, modules.output
    assert container.stop()[0] == 0
    assert docker("diff", container.name) == ""


def test_sigterm_comes_to_the_program_which_ends_with_0(
    images: dict[str, str], service: str, start: Start, report: Report
) -> None:
    container = start(images[service], *WORDS[service])
    container.wait_ready()
    status, seconds = container.stop()
    report(f"{service}: SIGTERM to its end", seconds)
    assert status == 0
    assert seconds < 10  # docker's SIGKILL would come after 30
    assert '"stopped"' in container.logs()


def test_byte_code_is_used_for_all_that_is_imported(
    docker: Docker, images: dict[str, str], service: str
) -> None:
    module = {"client": "client.probe.service", "server": "server.service"}[service]
    modules = ("__main__", module, "settings", *ASKING[service])
    code = "import uvloop, " + ", ".join(f"pingpong.{name}" for name in modules)
    said = docker("run", "--rm", "--entrypoint=python", images[service], "-v", "-c", code)
    assert f"pingpong/{service}/__pycache__" in said
    assert re.findall(r"^# code object from '?(/\S+\.py)\b", said, re.M) == []


def test_it_has_what_the_service_needs_and_nothing_else(
    docker: Docker, images: dict[str, str], service: str
) -> None:
    code = """if True:
        import sys
        from importlib.metadata import distributions
        path = [each for each in sys.path if each.startswith("/opt/pingpong")]
        print(*(each.name for each in distributions(path=path)))
    """
    said = docker("run", "--rm", "--entrypoint=python", images[service], "-c", code)
    has = {canonicalize_name(name) for name in said.split()}
    assert "pingpong-engine" in has
    assert has - {"pingpong-engine"} <= installed(service)
    assert has >= {canonicalize_name(Requirement(text).name) for text in named(service)}


def test_layers(
    docker: Docker, images: dict[str, str], service: str, tmp_path: Path, report: Report
) -> None:
    base = read(service).arguments["PYTHON_IMAGE"]
    below, size = len(docker.layers(base)), docker.inspect(images[service])["Size"]
    ours = size - docker.inspect(base)["Size"]
    report(f"{service}: size", f"{size / 1e6:.0f} MB, {ours / 1e6:.0f} MB above its base")
    assert ours < LARGEST[service]
    docker("save", "--output", str(tmp_path / "image.tar"), images[service], timeout=120)
    *others, dependencies, source = layers(tmp_path / "image.tar")[below:]
    report(f"{service}: last layer", f"{sum(f.size for f in source.values()) / 1e6:.1f} MB")
    assert sum(file.size for file in source.values()) < 4e6
    for path, file in {**dependencies, **source}.items():
        assert (file.mtime, file.uid, file.gid) == (0, 0, 0), path
        assert file.is_link or not file.mode & 0o6022, path
    for path in (path for layer in others for path in layer):
        assert path.endswith(".pyc") or "/python3.13" in path  # of the standard library
    src = "opt/pingpong/src"
    for layer, folder in ((dependencies, "opt/pingpong/venv"), (source, src)):
        outside = {path for path in layer if not f"{path}/".startswith(f"{folder}/")}
        assert outside == {"opt", "opt/pingpong"}
    for path in dependencies:
        assert not re.search(r"/(pip|setuptools|wheel|pytest|watchfiles|maturin)(/|$)", path)
        assert not re.search(
            r"\.(whl|key|pem)$|/\.cache|pip\.conf|direct_url\.json",
            path.replace("certifi/cacert.pem", ""),
        )
    kinds = {path.rpartition(".")[2] for path, file in source.items() if file.is_file}
    assert kinds == {"py", "pyc", "typed", f"{src}/LICENSE"}
    assert_compiled(dependencies)
    assert_compiled(source)


def assert_compiled(layer: Mapping[str, File]) -> None:
    """Every source but of kubernetes has byte code, which is taken without a look at the source."""
    sources = [path for path in layer if path.endswith(".py") and "/kubernetes/" not in path]
    assert sources
    for path in sources:
        folder, _, name = path.rpartition("/")
        compiled = layer[f"{folder}/__pycache__/{name.removesuffix('py')}{BYTE_CODE}"]
        assert compiled.head[4:8] == b"\1\0\0\0", path


def test_labels_and_what_is_set(docker: Docker, images: dict[str, str], service: str) -> None:
    config = docker.inspect(images[service])["Config"]
    labels = {k.removeprefix("org.opencontainers.image."): v for k, v in config["Labels"].items()}
    assert labels["title"] == f"pingpong-{service}"
    assert labels["version"] == pingpong.__version__
    assert labels["licenses"] == "Apache-2.0"
    assert config["User"] == "65532:65532"
    said = docker("run", "--rm", images[service], "--version")
    assert said == f"pingpong {labels['version']}\n"
    with removing(docker) as names:
        arguments = (
            "--build-arg=VERSION=9.8.7",
            "--build-arg=REVISION=abc",
            "--build-arg=SOURCE=here",
        )
        names.append(docker.build(service, f"{TAG}-labels", *arguments))
        given = docker.inspect(names[0])
        found = [
            given["Config"]["Labels"][f"org.opencontainers.image.{name}"]
            for name in ("version", "revision", "source")
        ]
        assert found == ["9.8.7", "abc", "here"]
        assert docker.layers(names[0]) == docker.layers(images[service])


def copy_of_the_context(folder: Path) -> Path:
    """What is sent to docker, in another place, at another time, with other rights."""
    sources = [path for name in ("services", "tools") for path in (ROOT / name).rglob("*")]
    for path in [*sources, *(path for path in ROOT.iterdir() if path.is_file())]:
        name = path.relative_to(ROOT)
        is_ours = name.name == ".dockerignore" or name.stem == "Dockerfile"
        if path.is_file() and (is_ours or is_sent(str(name))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
            (folder / name).chmod(0o664)
    return folder


def test_built_twice_it_is_the_same_to_the_bit(
    docker: Docker, images: dict[str, str], tmp_path: Path, report: Report
) -> None:
    service = "server"  # the client's image has the same engine, whose build takes longest
    with removing(docker) as names:
        watch = Stopwatch()
        names.append(
            docker.build(
                service, f"{TAG}-again", "--no-cache", context=copy_of_the_context(tmp_path)
            )
        )
        report(f"{service}: built from nothing", watch.seconds)
        assert docker.layers(names[0]) == docker.layers(images[service])


@pytest.mark.parametrize("buildkit", ["1", "0"], ids=["buildkit", "classic"])
def test_a_changed_line_makes_the_last_layer_anew_and_no_other(
    docker: Docker, buildkit: str, tmp_path: Path, report: Report
) -> None:
    context = copy_of_the_context(tmp_path)
    with removing(docker) as names:
        names.append(docker.build("server", f"{TAG}-before", context=context, buildkit=buildkit))
        init = context / "services/pingpong/__init__.py"
        init.write_text(init.read_text().replace(pingpong.__version__, "9.9.9"))
        # And what is no matter of the images.
        pyproject = context / "pyproject.toml"
        pyproject.write_text(pyproject.read_text() + "\n[tool.other]\nkey = 1\n")
        watch = Stopwatch()
        names.append(docker.build("server", f"{TAG}-after", context=context, buildkit=buildkit))
        report("a changed line, built", watch.seconds)
        before, after = (docker.layers(name) for name in names)
        assert before[:-1] == after[:-1]
        assert before[-1] != after[-1]
        assert docker("run", "--rm", names[1], "--version") == "pingpong 9.9.9\n"


def test_in_development_a_changed_file_is_run_in_the_same_container(
    docker: Docker, start: Start, tmp_path: Path, report: Report
) -> None:
    """As skaffold does it: kubectl exec, and tar there."""
    with removing(docker) as names:
        names.append(docker.build("server", f"{TAG}-dev", "--target=dev"))
        container = start(names[0], options=("--cap-drop=ALL", "--security-opt=no-new-privileges"))
        container.wait_ready()
        started = container.started

        def sync(text: str) -> None:
            name = "pingpong/__init__.py"
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
            docker("cp", str(tmp_path / name), f"{container.name}:/tmp/new.py")
            unpack = f"cd /tmp && mkdir -p opt/pingpong/src/pingpong && cp new.py opt/pingpong/src/{name} && tar cf - opt | tar xmf - -C / --no-same-owner"
            assert container.execute("sh", "-c", unpack).output == ""

        def version() -> str:
            try:
                with urllib.request.urlopen(f"{container.url}/version", timeout=1) as answer:
                    return str(json.load(answer)["version"])
            except OSError as error:
                raise AssertionError(str(error)) from None

        watch = Stopwatch()
        sync('__version__ = "9.9.9"\n')
        eventually(lambda: version() == "9.9.9", timeout=20, what="the change", interval=0.02)
        report("changed file to its answer", watch.seconds)
        sync("__version__ =\n")
        eventually(
            lambda: "SyntaxError" in container.logs(), timeout=20, what="the mistake in the log"
        )
        sync('__version__ = "9.9.10"\n')
        eventually(lambda: version() == "9.9.10", timeout=20, what="the mended change")
        container.wait_ready()
        assert container.started == started
        status, seconds = container.stop()
        assert status == 0
        assert seconds < 10
        assert '"stopped"' in container.logs()
