"""Checks what `python -m build` made, in dist/: as it would be installed, and what it holds."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
USER = """\
import asyncio

from pingpong.webtransport.asyncio import connect


async def main(url: str) -> bytes:
    async with await connect(url) as session:
        stream = await session.create_bidirectional_stream()
        reveal_type(stream)
        return b""


asyncio.run(main("https://localhost:4433/echo"))
"""


def run(*words: str | Path, cwd: Path) -> str:
    """Run a program without this checkout on Python's path. Returns its stdout; a failure ends all."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def only(pattern: str) -> Path:
    """The one file in dist/ that the pattern is for."""
    (found,) = (ROOT / "dist").glob(pattern)
    return found


def check_sdist() -> None:
    """All that pyproject.toml lists is in the source distribution."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    with tarfile.open(only("*.tar.gz")) as archive:
        held = [f"/{name.partition('/')[2]}" for name in archive.getnames()]
    for path in [*listed, "/README.md", "/LICENSE", "/pyproject.toml"]:
        if not any(name == path or name.startswith(f"{path}/") for name in held):
            sys.exit(f"the source distribution has no {path}")


def check_wheel(folder: Path) -> None:
    """The wheel works in an environment of its own, and its types reach who uses it."""
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    constraints = ROOT / "constraints.txt"
    run(*pip, "install", "-q", "-c", constraints, only("*.whl"), cwd=folder)
    run(*pip, "check", cwd=folder)
    help_text = run(folder / "venv" / "bin" / "pingpong", "ping", "--help", cwd=folder)
    if not help_text.startswith("usage: pingpong ping"):
        sys.exit(f"not the help of ping: {help_text}")
    user = folder / "user.py"
    user.write_text(USER)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable")
    types = run(*mypy, python, user, cwd=folder)
    if "BidirectionalStream" not in types:
        sys.exit(f"the types do not reach the user: {types}")


def main() -> None:
    """Check both."""
    check_sdist()
    with tempfile.TemporaryDirectory() as folder:
        check_wheel(Path(folder))
    print("The wheel installs, runs and brings its types; the source distribution is complete.")


if __name__ == "__main__":
    main()
