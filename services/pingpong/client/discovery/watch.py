"""Follows the EndpointSlices of a Service: list, then watch.

`kubernetes.aio.watch.Watch` is not used: it makes another API client, which reads all CAs of the
system again (40 ms of CPU), and parses each event three times.
"""

# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiException, DiscoveryV1Api

from ... import cluster
from .endpointslices import Slice
from .lookups import MAX_RETRY, MIN_INTERVAL, DiscoveryError, Result, retry_delay

WATCH = 120
"""Seconds after which the API server ends a watch, at most; then another one begins."""

_LIST = 10.0
"""Timeout in seconds of a list, and of the response to a watch."""
_MARGIN = 10.0
"""Seconds after `WATCH` at which a watch times out."""
_GONE = 410

Notify = Callable[[tuple[Slice, ...] | DiscoveryError], None]


class _GoneError(Exception):
    """The known version is too old for a watch: a list is needed."""


class EndpointSliceWatch:
    """Follows the slices of a Service.

    `notify` is called with all slices, or with the error: at first, at each change, and at each new
    watch. After a failure it lists again, with exponential backoff.
    """

    def __init__(
        self,
        namespace: str,
        service: str,
        notify: Notify,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._namespace = namespace
        self._service = service
        self._notify = notify
        self._random = random
        self._slices: dict[str, Slice] = {}
        self._version = ""
        self._failures = 0

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                # A new client after each failure: the credentials may be the reason.
                async with cluster.connect("an endpointslice:// target") as api_client:
                    await self._follow(DiscoveryV1Api(api_client))
            except Exception as error:
                self._failures += 1
                self._notify(self._failure(error))
            pause = MIN_INTERVAL
            if self._failures:
                pause = retry_delay(self._failures, MAX_RETRY, self._random())
            await asyncio.sleep(pause)

    async def _follow(self, api: DiscoveryV1Api) -> None:
        """List, and watch until another list is needed. Raises the errors of requests."""
        await self._list(api)
        self._failures = 0
        loop = asyncio.get_running_loop()
        while True:
            self._notify(tuple(self._slices.values()))
            began = loop.time()
            try:
                await self._watch(api)
            except _GoneError:
                return
            except (aiohttp.ClientError, OSError):
                return  # the API server may have restarted: a failure only if the list fails too
            await asyncio.sleep(max(0.0, MIN_INTERVAL - (loop.time() - began)))

    async def _list(self, api: DiscoveryV1Api) -> None:
        """Replace all slices."""
        async with await self._request(api, _LIST) as response:
            found = json.loads(await response.read())
        self._slices = {each["metadata"]["name"]: each for each in found.get("items") or ()}
        self._version = str(found["metadata"]["resourceVersion"])

    async def _watch(self, api: DiscoveryV1Api) -> None:
        """Process changes until the API server ends the watch."""
        async with asyncio.timeout(_LIST):
            response = await self._request(
                api,
                WATCH + _MARGIN,
                watch=True,
                resource_version=self._version,
                allow_watch_bookmarks=True,
                timeout_seconds=round(WATCH * (0.75 + 0.25 * self._random())),
            )
        async with response:
            async for line in response.content:
                self._process(json.loads(line))

    async def _request(
        self, api: DiscoveryV1Api, timeout: float, **options: Any
    ) -> aiohttp.ClientResponse:
        # JSON, since the client's models are those of one version of Kubernetes.
        response: aiohttp.ClientResponse = (
            await api.list_namespaced_endpoint_slice_without_preload_content(
                self._namespace,
                label_selector=f"kubernetes.io/service-name={self._service}",
                _request_timeout=timeout,
                **options,
            )
        )
        if response.status == 200:
            return response
        response.close()
        if response.status == _GONE:
            raise _GoneError
        raise ApiException(status=response.status, reason=response.reason)

    def _process(self, event: dict[str, Any]) -> None:
        kind, each = event["type"], event["object"]
        if kind == "ERROR":
            if each.get("code") == _GONE:
                raise _GoneError
            reason = f"{each.get('reason')}: {each.get('message')}"
            raise ApiException(status=each.get("code"), reason=reason)
        metadata = each["metadata"]
        if kind in ("ADDED", "MODIFIED"):
            self._slices[metadata["name"]] = each
        elif kind == "DELETED":
            self._slices.pop(metadata["name"], None)
        self._version = metadata.get("resourceVersion") or self._version
        self._notify(tuple(self._slices.values()))

    def _failure(self, error: Exception) -> DiscoveryError:
        result, text = Result.ERROR, cluster.explain(error)
        if isinstance(error, cluster.ClusterError):
            text = str(error)
        elif isinstance(error, ApiException):
            if error.status in (401, 403):
                result = Result.FORBIDDEN
            if error.status == 403:
                text = (
                    "the API server denies access: grant get, list and watch on"
                    f" endpointslices.discovery.k8s.io in the namespace {self._namespace}"
                )
            elif error.status == 404:
                text = "the API server has no EndpointSlices: Kubernetes 1.21 or later is needed"
        elif isinstance(error, TimeoutError):
            result = Result.TIMEOUT
        elif not isinstance(error, aiohttp.ClientError | OSError):
            text = (
                "cannot follow the EndpointSlices:"
                f" {type(error).__name__}: {cluster.one_line(error)}"
            )
        return DiscoveryError(result, text)
