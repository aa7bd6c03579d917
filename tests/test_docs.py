"""The documentation says what is there: its commands run, its tables are made, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import ssl
import tomllib
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from xml.etree import ElementTree

import pytest

from pingpong.client.probe import metrics as client_metrics
from pingpong.server import metrics as server_metrics
from tests.chart.rendering import render
from tests.client.ping.terminal import terminal
from tests.support.certificates import Authority
from tests.support.docs import PAGES, ROOT, block, blocks
from tests.support.processes import Process, run, serving
from tools.docs_tables import filled, tables

RUN_BY = {
    ("README.md", "python3 -m venv"): "test_the_extras_that_are_installed_exist",
    ("README.md", "pingpong serve"): "test_the_commands_of_a_server_and_a_client",
    ("README.md", "pingpong ping localhost"): "test_the_commands_of_a_server_and_a_client",
    ("README.md", "pingpong probe"): "test_the_commands_of_a_prober_and_its_admin_port",
    ("README.md", "pingpong ping --live"): "test_the_command_of_the_live_view",
    ("README.md", "docker build"): "test_what_the_readme_says_of_kubernetes_is_what_its_page_says",
    ("charts/pingpong/README.md", "helm install"): "tests/e2e/test_install.py",
    ("charts/pingpong/README.md", "helm upgrade"): "tests/e2e/test_rollout.py",
    ("charts/pingpong/README.md", "--set-json"): "test_the_annotations_for_prometheus_are_set",
    ("charts/pingpong/RUNBOOK.md", "kubectl get pods"): "tests/e2e/test_kubernetes_docs.py",
    ("docs/metrics.md", "pingpong serve --admin"): "test_the_commands_of_an_admin_port_with_tls",
    ("docs/metrics.md", "curl "): "test_the_commands_of_a_prober_and_its_admin_port",
}
"""Which test runs a block of commands, by its page and how it begins; those of docs/kubernetes.md
are typed by tests/e2e/test_kubernetes_docs.py, and what begins with `make` is a target."""
OTHER_PROGRAMS = {"helm", "kubectl", "docker", "kind", "make", "pytest", "curl", "pip"}
OTHER_OPTIONS = {"--help", "--version", "--set", "PINGPONG_TEST_"}
TITLE = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", tables())
def test_tables_are_those_of_the_code(page: str) -> None:
    text = PAGES[f"docs/{page}"]
    assert text == filled(text, tables()[page]), "run `make format`"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_by_a_test(page: str) -> None:
    for code in blocks(page, "sh"):
        if code.startswith("make ") or page == "docs/kubernetes.md":
            continue
        tests = [
            test for (of, start), test in RUN_BY.items() if of == page if code.startswith(start)
        ]
        assert tests, f"{code!r}: name the test that runs it in RUN_BY"
        assert all(test in globals() or (ROOT / test).exists() for test in tests)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_are_named_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", PAGES[page], re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_metrics_that_are_named_exist(page: str) -> None:
    named = set(re.findall(r"\bpingpong_(?:client|server)_\w+", PAGES[page]))
    specs = [*server_metrics.SPECS, *client_metrics.SPECS]
    there = {spec.name for spec in specs} | {
        f"{spec.name}_{part}"
        for spec in specs
        if spec.kind == "histogram"
        for part in ("bucket", "count", "sum")
    }
    assert named - there == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith(("README", "docs/"))])
def test_options_and_variables_that_are_named_exist(page: str) -> None:
    settings = "".join(tables()["configuration.md"].values()).replace("--[no-]", "--")
    for code in re.findall(r"`([^`\n]+)`", PAGES[page]):
        if code.split()[0] in OTHER_PROGRAMS:
            continue
        for name in re.findall(r"(?<![\w-])(--[a-z][a-z-]+|PINGPONG_[A-Z_]+)\b", code):
            positive = name.replace("--no-", "--")
            known = f"`{positive}`" in settings or name in OTHER_OPTIONS
            assert known, f"{page}: {name} in {code}"


def anchors(text: str) -> set[str]:
    """What GitHub calls a page's titles in links to them."""
    titles = TITLE.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_the_readme_begins_with_two_commands() -> None:
    assert [line.split("#")[0].strip() for line in block("README.md", "sh", "").splitlines()] == [
        "make run",
        "make test",
    ]


def test_what_the_readme_says_of_kubernetes_is_what_its_page_says() -> None:
    assert block("README.md", "sh", "helm install") in blocks("docs/kubernetes.md", "sh")


def test_the_annotations_for_prometheus_are_set() -> None:
    [[option, assignment]] = commands(block("charts/pingpong/README.md", "sh", "--set-json"))
    key, _, value = assignment.partition("=")
    assert (option, key) == ("--set-json", "client.podAnnotations")
    pods = render({"client": {"podAnnotations": json.loads(value)}}).pods()
    annotations = pods["Deployment pingpong-client"]["metadata"]["annotations"]
    assert json.loads(value).items() <= annotations.items()


def test_the_extras_that_are_installed_exist() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    _, (pip, install, what), _ = commands(block("README.md", "sh", "pip install"))
    assert (pip.rpartition("/")[2], install) == ("pip", "install")
    assert set(what.removeprefix(".[").removesuffix("]").split(",")) <= set(extras)


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block, without comments."""
    return [shlex.split(line, comments=True) for line in text.splitlines()]


def test_the_picture_is_of_the_live_view_as_it_is() -> None:
    texts = ElementTree.parse(ROOT / "docs/live.svg").iter("{http://www.w3.org/2000/svg}text")
    shown = " ".join("".join(each.text or "" for each in texts).split())
    assert re.search(r"sent +recv +loss +out +back +last +avg +p50 +p95 +p99", shown)
    for state in ("berlin.example", "1 outage of", "down for", "q quit", "× lost"):
        assert state in shown


@pytest.mark.process
def test_the_commands_of_a_server_and_a_client() -> None:
    assert commands(block("README.md", "sh", "pingpong serve")) == [["pingpong", "serve"]]
    with serving() as (_, words):
        sha256 = words[2].removeprefix("--cert-hash=")
        command = block("README.md", "sh", "pingpong ping localhost").replace("SHA256", sha256)
        command = command.replace("localhost", urlsplit(words[1]).netloc)
        assert command.split()[0] == "pingpong"
        status, out, _ = run(*command.split()[1:], "-c", "1")
    assert status == 0
    assert "1 sent, 1 received" in out


def fields(name: str) -> set[str]:
    """The fields of a table of docs/measuring.md."""
    text = PAGES["docs/measuring.md"].split(f"<!-- fields: {name} -->")[1].split("<!-- end -->")[0]
    first = [row.split("|")[1] for row in text.strip().splitlines()[2:]]
    return {field for cell in first for field in re.findall(r"`(\w+)`", cell)}


@pytest.mark.process
def test_the_output_for_programs_has_these_fields() -> None:
    with serving() as (_, words):
        status, out, _ = run(*words, "--json", "-D", "-c1")
    answer, summary = map(json.loads, out.splitlines())
    assert status == 0
    assert set(answer) == fields("answer")
    assert set(summary) == fields("summary")


@pytest.mark.process
async def test_the_command_of_the_live_view() -> None:
    command = block("README.md", "sh", "pingpong ping --live")
    _, *words = command.replace("berlin.example", "127.0.0.1:1").split()
    async with terminal(*words) as screen:
        await screen.shows("2 targets")
        screen.press("q")
        await screen.finish()


@pytest.mark.process
def test_the_commands_of_a_prober_and_its_admin_port() -> None:
    with serving() as (_, words):
        sha256 = words[2].removeprefix("--cert-hash=")
        command = block("README.md", "sh", "pingpong probe").replace("SHA256", sha256)
        command = command.replace("localhost", urlsplit(words[1]).netloc)
        with Process(*command.split()[1:], "--admin-host=127.0.0.1", "--admin-port=0") as prober:
            port = prober.read_event("admin_listening")["port"]
            prober.read_event("target_up")
            curls = commands(block("docs/metrics.md", "sh", "curl "))
            assert len(curls) == 5
            for curl, address in curls:
                assert curl == "curl"
                url = f"http://{address}".replace("localhost:8080", f"127.0.0.1:{port}")
                with urlopen(url) as answer:
                    assert answer.status == 200
                    assert answer.read()


@pytest.mark.process
def test_the_commands_of_an_admin_port_with_tls(tmp_path: Path) -> None:
    issued = Authority().issue("localhost")
    for name, content in issued.secret(issued.authority_pem).items():
        (tmp_path / name).write_bytes(content)
    token = "0123456789abcdef" * 4
    (tmp_path / "tokens").write_text(token)
    serve, curl = commands(block("docs/metrics.md", "sh", "--admin-tls-cert-file"))
    assert serve[0] == "pingpong"
    # Files are in a folder of their own here, and ports are free ones.
    options = [
        str(tmp_path / before) if (tmp_path / before).exists() else before for before in serve[2:]
    ]
    bound = ("--bind-host=127.0.0.1", "--bind-port=0", "--admin-host=127.0.0.1", "--admin-port=0")
    with Process(serve[1], *options, *bound, "--log-format=json") as server:
        port = server.read_event("admin_listening")["port"]
        _, cacert, authority, header, field, address = curl
        assert (cacert, header) == ("--cacert", "-H")
        name, _, value = field.replace("$TOKEN", token).partition(": ")
        request = Request(address.replace(":8080", f":{port}"), headers={name: value})
        trust = ssl.create_default_context(cafile=str(tmp_path / authority))
        with urlopen(request, context=trust) as answer:
            assert answer.status == 200
            assert b"pingpong_server_" in answer.read()
