"""Connects to the API server of a Kubernetes cluster, and explains its errors.

The configuration is, in this order:

1. the files in the variable KUBECONFIG, if it is set;
2. in a pod, its service account;
3. ~/.kube/config.

`kubernetes` is large (24 MB of memory): import this module only where a cluster is needed.
"""

# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from kubernetes.aio import client, config

# If the API server disappears without a FIN or RST, the connection fails within a minute.
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_READ_AGAIN = 60.0
"""Seconds after which the credentials of a kubeconfig are read again, since tokens expire."""


class ClusterError(Exception):
    """There is no cluster; the text is one line that says what to do."""


@asynccontextmanager
async def connect(needed_by: str) -> AsyncIterator[client.ApiClient]:
    """Make a client for the API server. Tokens are read again when they are renewed.

    `needed_by` begins the text of the error.

    Raises:
        ClusterError: there is no configuration, or it cannot be used.
    """
    configuration = client.Configuration()
    try:
        await _load(configuration)
        api_client = client.ApiClient(configuration)
    except Exception as error:
        raise ClusterError(
            f"{needed_by} needs a Kubernetes cluster: {_why_not(error)}; set KUBECONFIG to a"
            " kubeconfig file, or run in a pod with a mounted service account token"
        ) from None
    async with (
        api_client,
        aiohttp.TCPConnector(
            ssl=api_client.rest_client.ssl_context, socket_factory=_make_socket
        ) as connector,
    ):
        configuration.client_session_kwargs = {"connector": connector}
        yield api_client


def explain(error: Exception) -> str:
    """Why a request failed, in one line, without anything that was sent, such as a token."""
    if isinstance(error, client.ApiException):
        if error.status == 401:
            return (
                "the API server does not accept the credentials:"
                " check the service account, or the kubeconfig's user"
            )
        return f"the API server answered {error.status} {one_line(error.reason)}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the API server's certificate is not trusted: check the CA"
    if isinstance(error, TimeoutError):
        return "the API server does not answer"
    if isinstance(error, OSError):
        text = error.strerror
        if (
            error.errno is not None
            and error.errno in errno.errorcode
            and not isinstance(error, aiohttp.ClientSSLError)
        ):
            text = os.strerror(error.errno)  # asyncio's own text repeats the address
        return f"cannot connect to the API server: {one_line(text)}"
    return f"the request to the API server failed: {type(error).__name__}"


def one_line(text: object) -> str:
    """A text in one line of at most 200 characters."""
    return " ".join(str(text).split())[:200].rstrip(".")


async def _load(configuration: client.Configuration) -> None:
    files = os.environ.get("KUBECONFIG", "")
    if not files and "KUBERNETES_SERVICE_HOST" in os.environ:
        # The library reads the token again every minute.
        config.load_incluster_config(configuration)
        return
    files = files or str(Path.home() / ".kube/config")
    if not any(
        os.path.exists(os.path.expanduser(each)) for each in files.split(os.pathsep) if each
    ):
        raise config.ConfigException(f"there is no {files}")
    read_at = time.monotonic()

    async def load() -> None:
        await config.load_kube_config(
            files, client_configuration=configuration, persist_config=False
        )

    async def read_again(_: client.Configuration) -> None:
        nonlocal read_at
        if time.monotonic() - read_at > _READ_AGAIN:
            read_at = time.monotonic()
            await load()

    await load()
    configuration.refresh_api_key_hook = read_again  # type: ignore[assignment]


def _why_not(error: Exception) -> str:
    if isinstance(error, config.ConfigException):
        # After " in " the library shows the content of the file: keys and tokens.
        return one_line(str(error).partition(" in ")[0])
    return f"its configuration cannot be used ({type(error).__name__})"


def _make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for level, name, value in _SOCKET_OPTIONS:
        made.setsockopt(level, name, value)
    return made
