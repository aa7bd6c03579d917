"""Following EndpointSlices with the real client, against a small API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pingpong.client.discovery import watch as watches
from pingpong.client.discovery.endpointslices import Slice
from pingpong.client.discovery.lookups import DiscoveryError, Result
from pingpong.client.discovery.watch import EndpointSliceWatch
from tests.client.discovery.finding import PATIENCE, eventually
from tests.support.kubernetes_api import (
    SLICES,
    TOKEN,
    ApiServer,
    as_usual,
    endpoint,
    endpoint_slice,
)


class Told:
    """What a watch tells, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[Slice, ...] | DiscoveryError] = []
        self._news = asyncio.Event()

    def __call__(self, what: tuple[Slice, ...] | DiscoveryError) -> None:
        self.all.append(what)
        self._news.set()

    async def until(self, is_it: Callable[[Any], bool]) -> None:
        """Wait until the last that was told is it."""
        async with asyncio.timeout(PATIENCE):
            while not (self.all and is_it(self.all[-1])):
                self._news.clear()
                await self._news.wait()

    async def names(self, *names: str) -> None:
        """Wait for exactly these slices."""
        await self.until(
            lambda what: (
                isinstance(what, tuple)
                and sorted(each["metadata"]["name"] for each in what) == sorted(names)
            )
        )

    async def failure(self, after: int = 0) -> DiscoveryError:
        """Wait for a failure, behind so many things told."""
        await self.until(lambda what: len(self.all) > after and isinstance(what, DiscoveryError))
        found = self.all[-1]
        assert isinstance(found, DiscoveryError)
        assert "\n" not in str(found)
        assert TOKEN not in str(found)
        return found


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MIN_INTERVAL", 0.01)
    monkeypatch.setattr(watches, "retry_delay", lambda failures, interval, random: 0.01)


@asynccontextmanager
async def watching() -> AsyncIterator[Told]:
    """A watch of ns/svc, and what it tells."""
    told = Told()
    task = asyncio.create_task(EndpointSliceWatch("ns", "svc", told).run())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@pytest.fixture
async def told(api: ApiServer) -> AsyncIterator[Told]:
    """What is told of ns/svc, from when the watch has begun."""
    api.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")))
    async with watching() as told:
        await told.names("svc-1")
        await eventually(lambda: api.watches == 1)
        yield told


async def test_all_slices_of_the_service_are_reported_at_first(api: ApiServer, told: Told) -> None:
    assert isinstance(told.all[0], tuple)
    assert told.all[0][0]["endpoints"][0]["addresses"] == ["10.0.0.1"]
    first = api.requests[0]
    assert (first.verb, first.path) == ("list", SLICES)
    assert first.credential == f"Bearer {TOKEN}"


async def test_changes_are_reported(api: ApiServer, told: Told) -> None:
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2", pod="pod-2")))
    await told.names("svc-1", "svc-2")
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.3", pod="pod-2")))
    await told.until(lambda what: any(e["endpoints"][0]["addresses"] == ["10.0.0.3"] for e in what))
    api.delete("svc-1")
    await told.names("svc-2")
    assert (api.count("list"), api.count("watch")) == (1, 1)


async def test_slices_of_other_services_are_not_reported(api: ApiServer, told: Told) -> None:
    api.put(endpoint_slice("other-1", endpoint("10.0.0.9"), service="other"))
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    await told.names("svc-1", "svc-2")


async def test_a_watch_that_has_had_its_time_is_begun_again_where_it_ended(
    api: ApiServer, told: Told
) -> None:
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    await told.names("svc-1", "svc-2")
    api.end_watches()
    await eventually(lambda: api.count("watch") == 2)
    api.put(endpoint_slice("svc-3", endpoint("10.0.0.3")))
    await told.names("svc-1", "svc-2", "svc-3")
    assert api.count("list") == 1
    versions = [int(r.query["resourceVersion"]) for r in api.requests if r.verb == "watch"]
    assert versions[1] == versions[0] + 1


async def test_a_bookmark_moves_the_place_to_go_on_from(api: ApiServer, told: Told) -> None:
    before = len(told.all)
    api.bookmark()
    await eventually(lambda: len(told.all) > before)
    await told.names("svc-1")  # which are still right
    api.end_watches()
    await eventually(lambda: api.count("watch") == 2)
    versions = [int(r.query["resourceVersion"]) for r in api.requests if r.verb == "watch"]
    assert versions[1] == versions[0] + 1


async def test_what_is_forgotten_is_listed_again(api: ApiServer, told: Told) -> None:
    api.forget()
    api.delete("svc-1")
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    api.forget()  # so that a watch from where it was would miss both
    api.end_watches()
    await told.names("svc-2")
    assert api.count("list") == 2
    assert not any(isinstance(what, DiscoveryError) for what in told.all)


async def test_a_watch_that_breaks_is_no_failure_while_a_list_succeeds(
    api: ApiServer, told: Told
) -> None:
    api.end_watches(abruptly=True)
    await eventually(lambda: api.count("list") == 2)
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    await told.names("svc-1", "svc-2")
    assert not any(isinstance(what, DiscoveryError) for what in told.all)


@pytest.mark.parametrize(
    ("status", "result", "text"),
    [
        (
            403,
            Result.FORBIDDEN,
            "the API server denies access: grant get, list and watch on"
            " endpointslices.discovery.k8s.io in the namespace ns",
        ),
        (401, Result.FORBIDDEN, "the API server does not accept the credentials"),
        (404, Result.ERROR, "the API server has no EndpointSlices: Kubernetes 1.21 or later"),
        (500, Result.ERROR, "the API server answered 500 Internal Server Error"),
        (429, Result.ERROR, "the API server answered 429 Too Many Requests"),
    ],
)
async def test_refusals_are_reported_until_they_are_over(
    api: ApiServer, told: Told, status: int, result: Result, text: str
) -> None:
    api.instead = lambda request: status
    api.end_watches(abruptly=True)
    failure = await told.failure()
    assert failure.result is result
    assert text in str(failure)
    api.instead = as_usual
    await told.names("svc-1")


async def test_an_error_in_the_midst_of_a_watch_is_reported(api: ApiServer, told: Told) -> None:
    status = {"code": 500, "reason": "InternalError", "message": "etcd is gone"}
    api.send({"type": "ERROR", "object": {"metadata": {}, **status}})
    await eventually(lambda: any(isinstance(what, DiscoveryError) for what in told.all))
    (failure,) = [what for what in told.all if isinstance(what, DiscoveryError)]
    assert str(failure) == "the API server answered 500 InternalError: etcd is gone"
    await told.names("svc-1")


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"{}", b'{"metadata":{},"items":[{}]}'])
async def test_nonsense_is_a_failure(api: ApiServer, told: Told, garbage: bytes) -> None:
    api.instead = lambda request: garbage
    api.end_watches(abruptly=True)
    failure = await told.failure()
    assert failure.result is Result.ERROR
    assert str(failure).startswith("cannot follow the EndpointSlices: ")
    api.instead = as_usual
    await told.names("svc-1")


async def test_an_api_server_that_does_not_answer(
    api: ApiServer, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_LIST", 0.1)
    api.hold()
    api.end_watches(abruptly=True)
    failure = await told.failure()
    assert (failure.result, str(failure)) == (Result.TIMEOUT, "the API server does not answer")
    api.release()
    await told.names("svc-1")


async def test_no_api_server(api: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    api.close()
    async with watching() as told:
        failure = await told.failure()
    assert failure.result is Result.ERROR
    assert str(failure) == "cannot connect to the API server: Connection refused"
    # It is said once: by us.
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_outside_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    async with watching() as told:
        failure = await told.failure()
    assert failure.result is Result.ERROR
    assert str(failure).startswith(
        f"an endpointslice:// target needs a Kubernetes cluster: there is no {tmp_path}"
    )


async def test_cancelled_in_the_midst_of_a_watch_it_leaves_nothing_behind(
    api: ApiServer, told: Told
) -> None:
    async with watching():
        await eventually(lambda: api.watches == 2)
    # The API server notices when it writes.
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    api.put(endpoint_slice("svc-3", endpoint("10.0.0.2")))
    await told.names("svc-1", "svc-2", "svc-3")
