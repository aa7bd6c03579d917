"""New connections from a client's pod: by `pingpong ping`, with what is mounted there."""

from __future__ import annotations

from tests.e2e.commands import CommandError
from tests.e2e.pods import Pod
from tests.e2e.release import Release


def server_url(namespace: str) -> str:
    """Of the headless Service of the release `pingpong`."""
    return f"https://pingpong-server.{namespace}.svc:4433/ping"


def ping(release: Release, pod: Pod, *words: str) -> str:
    """Ping these URLs, with these options. Raises CommandError unless all answer.

    Its environment is the pod's own: it trusts whom the client trusts, and shows the same token.
    """
    return release.exec(pod, "pingpong", "ping", *words)


def refusal(release: Release, pod: Pod, *options: str, patience: float = 5) -> str | None:
    """Why the server does not answer a new connection; None where it does."""
    url = server_url(release.namespace)
    try:
        ping(release, pod, url, "-c", "1", "-w", f"{patience:g}", *options)
    except CommandError as error:
        return str(error)
    return None
