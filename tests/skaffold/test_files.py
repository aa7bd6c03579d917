"""Which change is synced into a container, which builds an image, and which is none of skaffold's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.skaffold.config import ROOT, Config, read_config, with_profiles
from tests.skaffold.files import copied, destinations, is_watched
from tests.support.dockerignore import glob, is_ignored

ARTIFACTS = with_profiles(read_config(), ["dev"])["build"]["artifacts"]
PACKAGE = ROOT / "services" / "pingpong"
SOURCES = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py"))

each_image = pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda artifact: artifact["image"])


def dockerfile(artifact: Config) -> Path:
    return ROOT / str(artifact["docker"]["dockerfile"])


@each_image
def test_every_source_file_is_synced_to_where_the_image_has_it(artifact: Config) -> None:
    assert "services/pingpong/__init__.py" in SOURCES
    # Wherever it is copied from: another stage, or the build context.
    instruction = "COPY services/pingpong /opt/pingpong/src/pingpong\n"
    assert instruction in dockerfile(artifact).read_text()
    for source in SOURCES:
        assert is_watched(artifact, source)
        inside = source.removeprefix("services/pingpong/")
        assert destinations(artifact, source) == [f"/opt/pingpong/src/pingpong/{inside}"]


@each_image
def test_a_new_file_in_a_new_folder_is_synced(artifact: Config) -> None:
    path = "services/pingpong/some/where/new.py"
    assert is_watched(artifact, path)
    assert destinations(artifact, path) == ["/opt/pingpong/src/pingpong/some/where/new.py"]


@each_image
@pytest.mark.parametrize(
    "path",
    [
        "LICENSE",
        "constraints.txt",
        "pyproject.toml",
        "services/engine/Cargo.lock",
        "services/engine/src/lib.rs",
        "services/pingpong/py.typed",
        "tools/reload.py",
    ],
)
def test_a_change_of_what_else_is_in_the_image_builds_it(artifact: Config, path: str) -> None:
    assert is_watched(artifact, path)
    assert destinations(artifact, path) == []


@each_image
def test_a_change_of_its_dockerfile_builds_the_image(artifact: Config) -> None:
    for each in ARTIFACTS:
        path = each["docker"]["dockerfile"]
        assert is_watched(artifact, path) == (each is artifact)


@each_image
@pytest.mark.parametrize(
    "path",
    [
        "services/pingpong/__pycache__/__init__.cpython-313.pyc",
        "services/pingpong/server/__pycache__/worker.cpython-313.pyc",
        "services/engine/target/release/libpingpong_engine.rlib",
        "README.md",
        "charts/pingpong/values.yaml",
        "skaffold.yaml",
        "tests/test_main.py",
        "tools/docs_tables.py",
    ],
)
def test_what_is_not_in_the_image_is_not_watched_for_it(artifact: Config, path: str) -> None:
    assert not is_watched(artifact, path)


@each_image
def test_everything_that_the_image_copies_exists(artifact: Config) -> None:
    sources = copied(dockerfile(artifact))
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


@each_image
def test_nothing_is_mounted_into_a_build_that_skaffold_would_not_see(artifact: Config) -> None:
    assert "--mount=type=bind" not in dockerfile(artifact).read_text()


@each_image
def test_the_target_is_a_stage_and_the_last_stage_is_that_of_a_release(artifact: Config) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile(artifact).read_text(), re.M)
    assert artifact["docker"]["target"] in stages
    assert stages[-1] == "runtime"


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a/**/*.py", "a/b.py", True),
        ("a/**/*.py", "a/b/c/d.py", True),
        ("a/**/*.py", "a/b.pyc", False),
        ("a/**/*.py", "ab/c.py", False),
        ("*.py", "a/b.py", False),
        ("a.b", "axb", False),
        ("a/?", "a/b", True),
        ("*.py[cod]", "a.pyc", True),
        ("*.py[cod]", "a.py", False),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert bool(re.fullmatch(glob(pattern), path)) == matches


@pytest.mark.parametrize(
    ("path", "ignored"),
    [("a", True), ("b/c", False), ("b/x/c", True), ("b/x/y", False), ("#", True)],
)
def test_the_last_line_of_dockerignore_that_matches_counts(
    tmp_path: Path, path: str, ignored: bool
) -> None:
    (tmp_path / ".dockerignore").write_text("# comment\n\n*\n!b\nb/x\n!b/x/y\n")
    assert is_ignored(path, tmp_path / "Dockerfile") == ignored


def test_a_dockerfiles_own_ignore_file_goes_before_the_other(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n")
    (tmp_path / "Dockerfile.dockerignore").write_text("b\n")
    assert not is_ignored("a", tmp_path / "Dockerfile")
    assert is_ignored("b", tmp_path / "Dockerfile")


def test_what_other_stages_made_is_not_copied_from_here(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        "FROM x AS y\nCOPY --chown=1:1 a \\\n  b/ /c\nCOPY --from=y /d /d\nRUN cp e f\n"
    )
    assert copied(file) == {"a", "b"}
