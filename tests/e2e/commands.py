"""Programs of this machine (docker, kind, helm), run to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended; `output` is what it wrote, to stderr too."""

    status: int
    output: str

    @property
    def ok(self) -> bool:
        """Whether its exit status was 0."""
        return self.status == 0


class CommandError(Exception):
    """A program failed, or took too long; the text has the command and the end of its output."""


def attempt(
    *command: str,
    environment: Mapping[str, str],
    timeout: float = 60,
    stdin: str | None = None,
    cwd: str | None = None,
) -> Result:
    """Run a program, however it ends. Raises CommandError where it can't be run or doesn't end."""
    try:
        ended = subprocess.run(
            command,
            env=dict(environment),
            timeout=timeout,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        seen = error.output.decode(errors="replace") if isinstance(error.output, bytes) else ""
        raise CommandError(
            f"`{' '.join(command)}` did not end in {timeout:g} s\n{seen[-4000:]}"
        ) from None
    except OSError as error:
        raise CommandError(f"`{' '.join(command)}` cannot be run: {error}") from None
    return Result(ended.returncode, ended.stdout)


def run(
    *command: str,
    environment: Mapping[str, str],
    timeout: float = 60,
    stdin: str | None = None,
    cwd: str | None = None,
) -> str:
    """Run a program, and return what it wrote. Raises CommandError unless it ends with 0."""
    result = attempt(*command, environment=environment, timeout=timeout, stdin=stdin, cwd=cwd)
    if not result.ok:
        raise CommandError(
            f"`{' '.join(command)}` ended with {result.status}\n{result.output[-4000:]}"
        )
    return result.output
