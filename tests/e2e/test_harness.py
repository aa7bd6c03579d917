"""What the end-to-end tests stand on, without a cluster: `make test` runs these."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.e2e import machine
from tests.e2e.commands import CommandError, attempt, run
from tests.e2e.following import Following
from tests.e2e.kind_clusters import make_or_reuse
from tests.e2e.machine import MachineError
from tests.e2e.measures import Measures
from tests.e2e.release import merged
from tests.e2e.scraping import Account, Samples
from tests.e2e.waiting import eventually

SYSTEM = "/usr/local/bin:/usr/bin:/bin"


def samples(**sent: int) -> Samples:
    """A client's, of these targets: all but one of the pings sent were answered."""
    name, done = "pingpong_client_probes_sent_total", "pingpong_client_probes_completed_total"
    lines = []
    for target, count in sent.items():
        labels = f'target="{target}",mode="datagram"'
        lines += [
            f"{name}{{{labels}}} {count}",
            f'{done}{{{labels},result="ok"}} {count - 1}',
            f'{done}{{{labels},result="lost"}} 0',
            f'pingpong_client_session_up{{target="{target}"}} {int(count > 10)}',
        ]
    return Samples("\n".join(lines) + "\n")


# Waiting.


def test_what_is_waited_for_is_returned() -> None:
    numbers = itertools.count()
    assert eventually(lambda: next(numbers), timeout=5, what="a number", interval=0) == 1


def test_a_failed_assertion_is_waited_through() -> None:
    asked: list[int] = []

    def third() -> bool:
        asked.append(1)
        assert len(asked) == 3
        return True

    eventually(third, timeout=5, what="it is the third time", interval=0)
    assert len(asked) == 3


def test_what_did_not_come_is_named_with_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match=r"not in 0 s: a pod is there; last seen: \[\]"):
        eventually(lambda: [], timeout=0, what="a pod is there")

    def asserting() -> bool:
        raise AssertionError("only 2 of 3")

    with pytest.raises(AssertionError, match="last seen: AssertionError: only 2 of 3"):
        eventually(asserting, timeout=0, what="three are there")


def test_a_mistake_in_a_condition_is_not_waited_through() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 // 0, timeout=60, what="this cannot be")


# Scraping.


def test_an_account_tells_what_waits_of_what_is_lost() -> None:
    account = samples(a=5, b=12).account()
    assert account == Account(sent=17, ok=15, late=0, lost=0, send_error=0, malformed=0)
    assert account.waiting == 2
    later = samples(a=9, b=12).account() - account
    assert (later.sent, later.ok, later.waiting) == (4, 4, 0)
    assert samples(a=5, b=12).account(target="b").sent == 12


def test_one_series_is_asked_for_and_no_more() -> None:
    scrape = samples(a=5, b=12)
    assert scrape.value("pingpong_client_session_up", target="b") == 1
    with pytest.raises(AssertionError, match="2 series"):
        scrape.value("pingpong_client_session_up")
    with pytest.raises(AssertionError, match="0 series"):
        scrape.value("pingpong_client_session_up", target="c")
    assert (scrape.targets, scrape.targets_up) == ({"a", "b"}, {"b"})


def test_following_keeps_the_accounts_of_targets_that_left() -> None:
    scrapes = iter([samples(a=1, b=1), samples(a=2, b=7), samples(a=3)])
    last = samples(a=9)
    with Following(lambda: next(scrapes, last), interval=0.001) as following:
        eventually(lambda: len(following.moments) > 3, timeout=5, what="scrapes", interval=0)
    assert following.targets == {"a", "b"}
    assert [account.sent for account in following.accounts("b")] == [1, 7]
    assert [account.sent for account in following.accounts("a")][:4] == [1, 2, 3, 9]
    assert following.first(lambda scrape: scrape.targets == {"a"}) == following.moments[2].at
    assert following.first(lambda scrape: "c" in scrape.targets) is None


def test_following_counts_scrapes_that_fail() -> None:
    outcomes = itertools.cycle([False, True])

    def scrape() -> Samples:
        assert next(outcomes), "the pod is gone"
        return samples(a=1)

    with Following(scrape, interval=0.001) as following:
        eventually(lambda: following.failures > 1, timeout=5, what="failures", interval=0)
    assert following.moments


# Values, and what is printed.


def test_values_are_laid_over_others_as_helm_does_it() -> None:
    base = {"image": {"tag": "e2e", "pullPolicy": "Never"}, "client": {"targets": ["a", "b"]}}
    changes = {"image": {"tag": "new"}, "client": {"targets": ["c"], "replicas": None}}
    assert merged(base, changes) == {
        "image": {"tag": "new", "pullPolicy": "Never"},
        "client": {"targets": ["c"], "replicas": None},
    }
    assert base["client"] == {"targets": ["a", "b"]}


def test_measures_are_printed_test_by_test() -> None:
    measures = Measures()
    measures.add("test_a", "until ready", 1.234)
    measures.add("test_a", "pings", 12)
    measures.add("test_b", "sent", "all")
    assert list(measures.lines()) == [
        *("test_a", "  until ready  1.23 s", "  pings        12"),
        *("test_b", "  sent         all"),
    ]


# Programs.


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes programs from lines of shell, and returns an environment that has them on its PATH.

    Each notes how it was called in the file `calls`.
    """
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(**scripts: str) -> dict[str, str]:
        for name, script in scripts.items():
            note = f'echo "{name} $*" >> {tmp_path}/calls\n'
            (folder / name).write_text(f"#!/bin/sh\n{note}{script}\n")
            (folder / name).chmod(0o755)
        return {"PATH": f"{folder}:{SYSTEM}", "KINDCTL": str(tmp_path / "none")}

    return make


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_a_program_that_fails_is_told_with_its_output() -> None:
    environment = {"PATH": SYSTEM}
    with pytest.raises(CommandError, match=r"(?s)`sh -c .*` ended with 3\nto stderr"):
        run("sh", "-c", "echo to stderr >&2; exit 3", environment=environment)
    with pytest.raises(CommandError, match=r"(?s)did not end in 0.2 s\nstarted"):
        run("sh", "-c", "echo started; exec sleep 20", environment=environment, timeout=0.2)
    with pytest.raises(CommandError, match="cannot be run"):
        attempt("there-is-no-such-program", environment=environment)
    assert run("cat", environment=environment, stdin="in") == "in"


WORKS = {"docker": "exit 0", "kind": "exit 0", "helm": "exit 0"}


def test_programs_on_the_path_are_used_as_they_are(programs: Callable[..., dict[str, str]]) -> None:
    environment = programs(**WORKS)
    assert machine.prepare(environment) == environment
    assert "on the PATH" in machine.check(environment)


@pytest.mark.parametrize("docker", ["absent", "silent"])
def test_a_machine_without_docker_is_told_what_to_do(
    programs: Callable[..., dict[str, str]], docker: str
) -> None:
    if docker == "silent":
        environment = programs(**{**WORKS, "docker": "exit 1"})
        lacks = "no docker daemon answers"
    else:
        environment = {**programs(kind="exit 0"), "PATH": programs()["PATH"].partition(":")[0]}
        lacks = "docker, helm not on the PATH"
    for ask in (machine.prepare, machine.check):
        with pytest.raises(MachineError) as raised:
            ask(environment)
        assert str(raised.value).startswith(f"{lacks}: install docker, kind and helm")


def test_the_check_says_it_with_its_exit_status(programs: Callable[..., dict[str, str]]) -> None:
    def check(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, machine.__file__, "check"]
        return subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, check=False
        )

    good = check(programs(**WORKS))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout == "make e2e can run here: docker, kind and helm are on the PATH\n"
    bad = check(programs(docker="exit 1"))
    assert (bad.returncode, bad.stdout) == (machine.CANNOT, "")
    assert bad.stderr.startswith("make e2e cannot run here: no docker daemon answers")
    assert bad.stderr.count("\n") == 1


def test_kindctl_makes_what_is_missing(
    programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    programs(go="exit 0", docker="exit 1", kind="exit 0", helm="exit 0")
    made = tmp_path / "made"
    made.mkdir()
    kindctl = (
        'case "$1" in all)'
        f" printf '#!/bin/sh\\n' > {made}/docker; chmod 755 {made}/docker;;"
        f""" env) echo 'export PATH={made}:"$PATH"'; echo export KIND_NODE_IMAGE=node:here;; esac"""
    )
    environment = programs(kindctl=kindctl) | {"KINDCTL": str(tmp_path / "bin" / "kindctl")}
    assert "kindctl" in machine.check(environment)
    prepared = machine.prepare(environment)
    assert prepared["PATH"] == f"{made}:{environment['PATH']}"
    assert prepared["KIND_NODE_IMAGE"] == "node:here"
    asked = [call for call in calls(tmp_path) if call.startswith("kindctl")]
    assert asked == ["kindctl up-docker", "kindctl all", "kindctl env"]


def test_a_kindctl_that_fails_is_named(
    programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = programs(go="exit 0", docker="exit 1", kind="exit 0", helm="exit 0", ctl="exit 4")
    environment["KINDCTL"] = str(tmp_path / "bin" / "ctl")
    with pytest.raises(MachineError, match="ctl up-docker` ended with 4"):
        machine.check(environment)


# Clusters.


def test_a_cluster_that_is_not_there_is_made(
    programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = programs(kind='[ "$1" != get ] || echo other', docker="exit 0")
    made = make_or_reuse("mine", tmp_path / "k", environment | {"KIND_NODE_IMAGE": "node:here"})
    assert made.is_new
    [creation] = [call for call in calls(tmp_path) if call.startswith("kind create")]
    assert "--name mine" in creation
    assert "--image node:here" in creation
    assert str(tmp_path / "k") in creation


def test_a_cluster_that_answers_is_used_and_is_not_ours(
    programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = programs(kind='[ "$1" != get ] || echo mine', docker="exit 0")
    assert not make_or_reuse("mine", tmp_path / "k", environment).is_new
    assert not [call for call in calls(tmp_path) if "create" in call or "delete" in call]


def test_a_cluster_that_does_not_answer_is_made_anew(
    programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = programs(kind='[ "$1" != get ] || echo mine', docker="exit 1")
    assert make_or_reuse("mine", tmp_path / "k", environment).is_new
    verbs = [call.split()[1] for call in calls(tmp_path) if call.startswith("kind")]
    assert verbs == ["get", "export", "delete", "create"]


def test_a_cluster_that_could_not_be_made_is_removed(
    programs: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    environment = programs(kind='[ "$1" != create ] || { echo no disk; exit 1; }', docker="exit 0")
    with pytest.raises(CommandError, match="no disk"):
        make_or_reuse("mine", tmp_path / "k", environment)
    assert calls(tmp_path)[-1].startswith("kind delete cluster --name mine")
