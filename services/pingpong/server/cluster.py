"""The cluster's API server: how to reach it, and what it means when it refuses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


class ClusterError(Exception):
    """There is no cluster to ask; the text is one line that says what to do."""


def connect(purpose: str) -> ApiClient:
    """Make a client: in a pod of its service account, elsewhere as KUBECONFIG says.

    Slow: it imports the client library. `purpose` is for the error's text.

    Raises:
        ClusterError: there is neither, or it cannot be used.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    # The library's own attempts would multiply the time that one may take.
    configuration.retries = False
    try:
        if path := os.environ.get("KUBECONFIG"):
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path, client_configuration=configuration
            )
        else:
            # From then on the library reads the token again every minute, since it is renewed.
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
    except (config.ConfigException, OSError, ValueError) as error:
        raise ClusterError(
            f"no cluster to {purpose}: {one_line(error)};"
            " run in a pod that has its service account's token mounted, or set KUBECONFIG"
        ) from None
    return client.ApiClient(configuration)


def refusal(status: int, reason: object) -> str:
    """Why the API server did not do what it was asked, in a line; `status` 0: no TLS."""
    if status == 401:
        return "the API server does not know who asks: check this pod's own service account"
    if status == 0:
        return "the API server's certificate is not trusted: check the CA"
    return f"the API server answered {status} {one_line(reason)}"


def one_line(text: object) -> str:
    """A text in one line that is not endless."""
    return " ".join(str(text).split())[:200].rstrip(".")
