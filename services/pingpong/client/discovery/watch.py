"""Follows the EndpointSlices of a service: list, then watch, in a thread of its own."""

# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import asyncio
import contextlib
import json
import os.path
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .endpointslices import Slice
from .lookups import MAX_RETRY, MIN_INTERVAL, DiscoveryError, Result, retry_delay

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, DiscoveryV1Api

WATCH = 120
"""Seconds after which the API server is to end a watch, at most, and it is begun anew."""

_CONNECT = 5.0
_LIST = 10.0
"""Seconds without a byte after which a list has failed."""
_MARGIN = 10.0
"""Seconds by which a watch may outstay its time."""
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A watch whose API server is gone without a word is found out within a minute.
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_GONE = 410

Notify = Callable[[tuple[Slice, ...] | DiscoveryError], None]


def connect(config_file: str | None = None) -> ApiClient:
    """Make a client for the API server: of kubeconfig if there is one, else of the pod's account.

    Raises `DiscoveryError` where there is neither, or it cannot be used.
    """
    from kubernetes import client, config

    settings = client.Configuration()
    files = config_file or config.KUBE_CONFIG_DEFAULT_LOCATION
    is_there = any(os.path.exists(os.path.expanduser(f)) for f in files.split(os.pathsep) if f)
    try:
        if is_there:
            config.load_kube_config(files, client_configuration=settings, persist_config=False)
        else:
            config.load_incluster_config(client_configuration=settings)
    except Exception as error:
        # Only the package's own exceptions say nothing of what is in the file, such as keys.
        known = isinstance(error, config.ConfigException)
        text = f"cannot use {files}: {_line(error) if known else type(error).__name__}"
        if not is_there:
            text = f"not in a pod with a service account, and no {files}: set KUBECONFIG"
        raise DiscoveryError(Result.ERROR, text) from None
    # urllib3's way to say none: a failure is reported, and a new list follows.
    settings.retries = False
    settings.socket_options = list(_KEEP_ALIVE)
    return client.ApiClient(settings)


class _GoneError(Exception):
    """What came after the version that is known is forgotten: only a list helps."""


class EndpointSliceWatch:
    """Follows the slices of a service.

    `notify` is called in the event loop of `start`, with all slices or with why they are not
    known: at first, at each change, and now and then though nothing has changed. After a failure
    it goes on by itself: it lists again, at growing distances.
    """

    def __init__(
        self,
        namespace: str,
        service: str,
        notify: Notify,
        *,
        connect: Callable[[], ApiClient] = connect,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._namespace = namespace
        self._service = service
        self._callback = notify
        self._connect = connect
        self._random = random
        self._slices: dict[str, Slice] = {}
        self._version = ""
        self._failures = 0
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._response: Any = None
        """The watch that the thread reads; None while it does something else."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        """None before `start`. At the end of the program it is not waited for."""

    def start(self) -> None:
        """Begin; to be called once, in an event loop."""
        self._loop = asyncio.get_running_loop()
        name = f"endpointslices {self._namespace}/{self._service}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Notify no more, and end the thread: at once, where it waits for news."""
        with self._lock:
            self._stopping.set()
            connection = None if self._response is None else self._response.connection
            sock = None if connection is None else connection.sock
            if sock is not None:
                # To close it would wait for the thread, which is reading.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                api_client = self._connect()
                try:
                    self._follow(api_client)
                finally:
                    api_client.close()
            except Exception as error:
                self._failures += 1
                self._notify(self._failure(error))
            pause = MIN_INTERVAL
            if self._failures:
                pause = retry_delay(self._failures, MAX_RETRY, self._random())
            self._stopping.wait(pause)

    def _follow(self, api_client: ApiClient) -> None:
        """List, and watch until the list is to be made anew. Raises what makes it fail."""
        from kubernetes.client import DiscoveryV1Api
        from urllib3.exceptions import HTTPError

        api = DiscoveryV1Api(api_client)
        self._list(api)
        self._failures = 0
        while not self._stopping.is_set():
            self._notify(tuple(self._slices.values()))
            began = time.monotonic()
            try:
                self._watch(api)
            except _GoneError:
                return
            except HTTPError:
                return  # an API server that restarts: it is a failure if the list fails too
            self._stopping.wait(max(0.0, MIN_INTERVAL - (time.monotonic() - began)))

    @property
    def _selector(self) -> str:
        return f"kubernetes.io/service-name={self._service}"

    def _list(self, api: DiscoveryV1Api) -> None:
        """Take in all slices there are."""
        response: Any = api.list_namespaced_endpoint_slice(
            self._namespace,
            label_selector=self._selector,
            _preload_content=False,
            _request_timeout=(_CONNECT, _LIST),
        )
        found = json.loads(response.data)
        self._slices = {each["metadata"]["name"]: each for each in found.get("items") or ()}
        self._version = str(found["metadata"]["resourceVersion"])

    def _watch(self, api: DiscoveryV1Api) -> None:
        """Take in what changes, until the API server ends it."""
        from kubernetes.client import ApiException

        try:
            response: Any = api.list_namespaced_endpoint_slice(
                self._namespace,
                label_selector=self._selector,
                watch=True,
                resource_version=self._version,
                allow_watch_bookmarks=True,
                timeout_seconds=round(WATCH * (0.75 + 0.25 * self._random())),
                _preload_content=False,
                _request_timeout=(_CONNECT, WATCH + _MARGIN),
            )
        except ApiException as error:
            raise (_GoneError if error.status == _GONE else error) from None
        try:
            with self._lock:
                if self._stopping.is_set():
                    return
                self._response = response
            # Plain objects: the client's models would refuse what a newer API server adds.
            for line in response:
                if self._stopping.is_set():
                    return
                self._take(json.loads(line))
        finally:
            with self._lock:
                self._response = None
            response.close()

    def _take(self, event: dict[str, Any]) -> None:
        kind, each = event["type"], event["object"]
        if kind == "ERROR":
            if each.get("code") == _GONE:
                raise _GoneError
            raise self._refusal(
                each.get("code") or 0, f"{each.get('reason')}: {each.get('message')}"
            )
        metadata = each["metadata"]
        if kind in ("ADDED", "MODIFIED"):
            self._slices[metadata["name"]] = each
        elif kind == "DELETED":
            self._slices.pop(metadata["name"], None)
        self._version = metadata.get("resourceVersion") or self._version
        self._notify(tuple(self._slices.values()))

    def _notify(self, what: tuple[Slice, ...] | DiscoveryError) -> None:
        assert self._loop is not None

        def notify() -> None:
            if not self._stopping.is_set():
                self._callback(what)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(notify)

    def _failure(self, error: Exception) -> DiscoveryError:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

        if isinstance(error, DiscoveryError):
            return error
        if isinstance(error, ApiException):
            return self._refusal(error.status or 0, str(error.reason))
        # A refused connection is one kind of timeout for urllib3.
        if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
            return DiscoveryError(Result.TIMEOUT, "the API server does not answer")
        if isinstance(error, HTTPError | OSError):
            return DiscoveryError(Result.ERROR, f"no way to the API server: {_cause(error)}")
        text = f"cannot follow the EndpointSlices: {type(error).__name__}: {_cause(error)}"
        return DiscoveryError(Result.ERROR, text)

    def _refusal(self, status: int, reason: str) -> DiscoveryError:
        if status == 403:
            return DiscoveryError(
                Result.FORBIDDEN,
                "the API server forbids it: grant get, list and watch on"
                f" endpointslices.discovery.k8s.io in the namespace {self._namespace}",
            )
        if status == 401:
            text = "the API server does not accept the token: is the service account still there?"
            return DiscoveryError(Result.FORBIDDEN, text)
        if status == 404:
            text = "the API server has no EndpointSlices: Kubernetes 1.21 or later is needed"
            return DiscoveryError(Result.ERROR, text)
        if status == 0:  # of a TLS handshake
            return DiscoveryError(Result.ERROR, f"no way to the API server: {_line(reason)}")
        return DiscoveryError(Result.ERROR, f"the API server answered {status} {_line(reason)}")


def _cause(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps it in objects' names."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return _line(getattr(error, "strerror", None) or error)


def _line(text: object) -> str:
    """A text in one line; `DiscoveryError` makes it printable and short."""
    return " ".join(str(text).split())
