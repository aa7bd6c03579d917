"""Following EndpointSlices with the real client, against a small API server."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.config import incluster_config

from pingpong.client.discovery import watch as watches
from pingpong.client.discovery.endpointslices import Slice
from pingpong.client.discovery.lookups import DiscoveryError, Result
from pingpong.client.discovery.watch import EndpointSliceWatch, connect
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


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.put(endpoint_slice("svc-1", endpoint("10.0.0.1", pod="pod-1")))
        yield server


@pytest.fixture
async def told(api: ApiServer, tmp_path: Path) -> AsyncIterator[Told]:
    """What is told of ns/svc, from when the watch has begun."""
    told = Told()
    config = api.kubeconfig(tmp_path)
    watch = EndpointSliceWatch("ns", "svc", told, connect=lambda: connect(config))
    watch.start()
    await told.names("svc-1")
    await eventually(lambda: api.watches == 1)
    yield told
    watch.stop()
    assert watch.thread is not None
    api.end_watches(abruptly=True)
    await asyncio.to_thread(watch.thread.join, PATIENCE)
    assert not watch.thread.is_alive()


async def test_all_slices_of_the_service_are_told_at_first(api: ApiServer, told: Told) -> None:
    assert isinstance(told.all[0], tuple)
    assert told.all[0][0]["endpoints"][0]["addresses"] == ["10.0.0.1"]
    first = api.requests[0]
    assert (first.verb, first.path) == ("list", SLICES)
    assert first.credential == f"Bearer {TOKEN}"


async def test_changes_are_told(api: ApiServer, told: Told) -> None:
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2", pod="pod-2")))
    await told.names("svc-1", "svc-2")
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.3", pod="pod-2")))
    await told.until(lambda what: any(e["endpoints"][0]["addresses"] == ["10.0.0.3"] for e in what))
    api.delete("svc-1")
    await told.names("svc-2")
    assert (api.count("list"), api.count("watch")) == (1, 1)


async def test_slices_of_other_services_are_not_told(api: ApiServer, told: Told) -> None:
    api.put(endpoint_slice("other-1", endpoint("10.0.0.9"), service="other"))
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    await told.names("svc-1", "svc-2")


async def test_a_watch_that_has_had_its_time_is_begun_anew_where_it_ended(
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


async def test_what_is_forgotten_is_listed_anew(api: ApiServer, told: Told) -> None:
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
            "the API server forbids it: grant get, list and watch on"
            " endpointslices.discovery.k8s.io in the namespace ns",
        ),
        (401, Result.FORBIDDEN, "the API server does not accept the token"),
        (404, Result.ERROR, "the API server has no EndpointSlices: Kubernetes 1.21 or later"),
        (500, Result.ERROR, "the API server answered 500 Internal Server Error"),
        (429, Result.ERROR, "the API server answered 429 Too Many Requests"),
    ],
)
async def test_refusals_are_told_until_they_are_over(
    api: ApiServer, told: Told, status: int, result: Result, text: str
) -> None:
    api.instead = lambda request: status
    api.end_watches(abruptly=True)
    failure = await told.failure()
    assert failure.result is result
    assert text in str(failure)
    api.instead = as_usual
    await told.names("svc-1")


async def test_an_error_in_the_midst_of_a_watch_is_told(api: ApiServer, told: Told) -> None:
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


async def test_no_api_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ApiServer() as gone:
        config = gone.kubeconfig(tmp_path)
    told = Told()
    watch = EndpointSliceWatch("ns", "svc", told, connect=lambda: connect(config))
    watch.start()
    failure = await told.failure()
    watch.stop()
    assert failure.result is Result.ERROR
    assert str(failure) == "no way to the API server: Connection refused"
    assert watch.thread is not None
    await asyncio.to_thread(watch.thread.join, PATIENCE)
    # It is said once: by us.
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_outside_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    missing = str(tmp_path / "none")
    told = Told()
    watch = EndpointSliceWatch("ns", "svc", told, connect=lambda: connect(missing))
    watch.start()
    failure = await told.failure()
    watch.stop()
    assert str(failure) == (
        f"not in a pod with a service account, and no {missing}: set KUBECONFIG"
    )


def test_in_a_pod_its_service_account_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, name, text in (
        ("SERVICE_TOKEN_FILENAME", "token", TOKEN),
        ("SERVICE_CERT_FILENAME", "ca.crt", "an authority"),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(incluster_config, variable, str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(client, "ApiClient", lambda settings: settings)  # which reads the authority
    settings: Any = connect(str(tmp_path / "none"))
    assert settings.host == "https://[fd00::1]:443"
    assert settings.api_key == {"BearerToken": f"bearer {TOKEN}"}
    assert settings.ssl_ca_cert == str(tmp_path / "ca.crt")


@pytest.mark.parametrize("text", ["", "a: [", f"users: {TOKEN}", f"users: *{TOKEN}", "- 1"])
def test_a_kubeconfig_that_is_none_does_not_show_what_is_in_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(DiscoveryError, match=f"cannot use {path}: ") as failed:
        connect(str(path))
    assert TOKEN not in str(failed.value)
    assert "\n" not in str(failed.value)


async def test_stopped_in_the_midst_of_a_watch_it_ends_at_once(
    api: ApiServer, tmp_path: Path
) -> None:
    told = Told()
    config = api.kubeconfig(tmp_path)
    watch = EndpointSliceWatch("ns", "svc", told, connect=lambda: connect(config))
    watch.start()
    await eventually(lambda: api.watches == 1)
    watch.stop()
    assert watch.thread is not None
    await asyncio.to_thread(watch.thread.join, PATIENCE)
    assert not watch.thread.is_alive()


async def test_stopped_it_tells_nothing_more(api: ApiServer, tmp_path: Path) -> None:
    told = Told()
    config = api.kubeconfig(tmp_path)
    watch = EndpointSliceWatch("ns", "svc", told, connect=lambda: connect(config))
    watch.start()
    await eventually(lambda: api.watches == 1)
    await told.names("svc-1")
    before = len(told.all)
    api.put(endpoint_slice("svc-2", endpoint("10.0.0.2")))
    while len(watch._slices) < 2:  # without a turn of this loop
        time.sleep(0.001)
    watch.stop()
    assert watch.thread is not None
    await asyncio.to_thread(watch.thread.join, PATIENCE)
    assert len(told.all) == before


async def test_a_watch_whose_api_server_is_gone_without_a_word_is_found_out(
    api: ApiServer, tmp_path: Path
) -> None:
    options = connect(api.kubeconfig(tmp_path)).configuration.socket_options
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in options
    idle, between, tries = (
        next(value for level, name, value in options if (level, name) == (socket.IPPROTO_TCP, key))
        for key in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + between * tries <= 60
