"""An admin port of a service that a test changes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from prometheus_client import Metric

from pingpong.admin import Admin
from pingpong.admin.listener import Bounds
from pingpong.settings import ServiceSettings
from pingpong.telemetry.health import Check, Result
from pingpong.telemetry.metrics import BucketCounts, Spec
from pingpong.telemetry.process import standard_registry

PINGS = Spec("x_pings_total", "counter", "Pings.", {"target": None})
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.")
BUILD = Spec("x_build_info", "info", "What runs here.", {"version": None})


class Service:
    """What an admin port shows: a test changes it."""

    def __init__(self) -> None:
        self.liveness = Result(True, "0 ms late")
        self.readiness = Result(True, "answered 1 s ago")
        self.targets: Result | Exception = Result(True)
        self.failure: Exception | None = None

    async def families(self) -> Iterable[Metric]:
        if self.failure:
            raise self.failure
        return [
            PINGS.metric([(("a",), 3)]),
            RTT.metric([((), BucketCounts((0.1, 1.0)))]),
            BUILD.metric([(("1.0",), 1)]),
            *standard_registry().collect(),
        ]

    def check_targets(self) -> Result:
        if isinstance(self.targets, Exception):
            raise self.targets
        return self.targets


@contextlib.asynccontextmanager
async def running(
    service: Service | None = None,
    settings: ServiceSettings | None = None,
    bounds: Bounds | None = None,
    **files: Any,
) -> AsyncIterator[Admin]:
    service = service or Service()
    admin = Admin(
        settings or ServiceSettings(admin_host="127.0.0.1", admin_port=0, **files),
        liveness=[Check("event_loop", lambda: service.liveness)],
        readiness=[Check("self_ping", lambda: service.readiness),
                   Check("targets", service.check_targets)],
        families=service.families,
        version={"version": "1.0", "python": "3.11"},
        bounds=bounds,
    )  # fmt: skip
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
