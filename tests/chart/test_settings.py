"""Every setting of the program can be set by the chart, within the same bounds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import helm_python as helm
import pytest
import yaml
from pydantic import TypeAdapter

from pingpong.settings import ProbeSettings, ServeSettings, Settings
from tests.chart import program
from tests.chart.rendering import CHART, container, loaded, merged, render
from tests.chart.schema_values import Generator, nested
from tools.chart_tables import schema_of

ADMIN = {
    "admin_port": "8080",
    "admin_tls_cert_file": "admin.tls.secretName",
    "admin_tls_key_file": "admin.tls.secretName",
    "admin_token_file": "admin.auth.tokenSecret",
    "admin_basic_auth_file": "admin.auth.basicAuthSecret",
}
COMPONENTS: dict[str, type[Settings]] = {"server": ServeSettings, "client": ProbeSettings}
OF_THE_CHART = {
    "server": {
        # What Services and probes lead to.
        "bind_port": "4433",
        **ADMIN,
        "drain_timeout": "server.drain.timeoutSeconds",
        "drain_stay_ready": "server.drain.stayReady",
        "tls_cert_file": "server.tls",
        "tls_key_file": "server.tls",
        # A pod's files end with it: it has certificates from Secrets.
        "state_dir": "server.tls",
        "auth": "server.auth.mode",
        "token_file": "server.auth.tokenSecret",
        "token_audience": "server.auth.audience",
    },
    "client": {
        **ADMIN,
        "targets": "client.targets",
        "ca": "client.tls",
        "cert_hash": "client.tls.certHash",
        "insecure": "client.tls.insecure",
        "token_file": "client.auth",
    },
}
"""Settings that the chart makes of other values, or that are fixed, and which those are."""

NARROWER = {("server", "bind_host"), ("server", "admin_host"), ("client", "admin_host")}
"""A pod has to be reached at its own address: only "all" makes sense there."""

SETTINGS = [(name, field) for name, cls in COMPONENTS.items() for field in cls.model_fields]


def camel(field: str) -> str:
    return re.sub(r"_(.)", lambda found: found[1].upper(), field)


def settings_of(component: str, values: dict[str, Any]) -> Any:
    template = render(values).one("Deployment", f"pingpong-{component}")["spec"]["template"]
    return program.settings(container(template, component))


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_setting_of_the_program_is_one_of_the_chart_or_made_by_it(component: str) -> None:
    known = set(schema_of((component, "settings"))["properties"])
    fields = set(COMPONENTS[component].model_fields)
    assert known == {camel(field) for field in fields - set(OF_THE_CHART[component])}
    assert set(OF_THE_CHART[component]) <= fields


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_the_chart_makes_settings_of_are_values(component: str) -> None:
    for place in OF_THE_CHART[component].values():
        if not place.isdigit():
            assert schema_of(tuple(place.split(".")))


@pytest.mark.parametrize(
    ("component", "field"),
    [each for each in SETTINGS if each[1] not in OF_THE_CHART[each[0]] and each not in NARROWER],
)
def test_the_schema_has_the_types_and_bounds_of_the_program(component: str, field: str) -> None:
    info = COMPONENTS[component].model_fields[field]
    schema = Generator(loaded().schema or {}, {}).resolved(
        schema_of((component, "settings"))["properties"][camel(field)]
    )
    kinds = [each for each in get_args(info.annotation) or [info.annotation] if each != NoneType]
    if get_origin(info.annotation) is tuple:
        assert schema["type"] == "array"
        items = kinds[0]
        if get_origin(items) is Literal:
            assert set(schema["items"]["enum"]) == set(get_args(items))
        return
    if get_origin(info.annotation) is Literal:
        assert set(schema["enum"]) == set(get_args(info.annotation))
        return
    [kind] = kinds
    metadata = list(info.metadata)
    if get_origin(kind) is Annotated:
        kind, *further = get_args(kind)
        metadata += [each for field in further for each in field.metadata]
    # With --set a number with a point comes as a text.
    types: dict[object, object] = {int: "integer", float: ["number", "string"], bool: "boolean"}
    assert schema["type"] == types[kind]
    bounds = {
        word: getattr(each, name)
        for each in metadata
        for name, word in (("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum"))
        if hasattr(each, name)
    }
    assert {word: schema[word] for word in bounds} == bounds


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_program_reads_every_setting_as_it_was_written(component: str) -> None:
    written: dict[str, dict[str, Any]] = {
        "server": {
            "bindHost": "0.0.0.0",
            "adminHost": "0.0.0.0",
            "workers": 0,
            "engine": "quinn",
            "allowedOrigins": ["https://a.example", "https://b.example:8443"],
            "rateLimit": 1_000_000,
            "idleTimeout": 0.000001,
            "maxConnections": 1_000_000,
            "maxSessions": 1,
            "maxStreams": 1_000_000,
            "maxMessageSize": 16_777_216,
            "maxHandshakes": 0,
            "selfPingInterval": 0,
            "logLevel": "warning",
            "logFormat": "console",
        },
        "client": {
            "adminHost": "::",
            "engine": "aioquic",
            "maxTargets": 1_000_000,
            "discoveryInterval": 31_536_000,
            "all": False,
            "mode": ["uni", "datagram"],
            "interval": 0.05,
            "timeout": 2.5,
            "size": 1_048_576,
            "connectTimeout": 31_536_000,
            "backoffMin": 1e-7,
            "backoffMax": 20_000_000,
            "rttBuckets": [0.00005, 0.001, 2],
            "readyRequires": "all",
            "logLevel": "debug",
            "logFormat": "json",
        },
    }
    assert set(written[component]) == set(schema_of((component, "settings"))["properties"])
    read = settings_of(component, {component: {"settings": written[component]}})
    for name, value in written[component].items():
        field = re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(read, field) == expected, name


@pytest.mark.parametrize("component", COMPONENTS)
def test_without_a_word_the_programs_defaults_hold(component: str) -> None:
    cls = COMPONENTS[component]
    default = settings_of(component, {})
    said = {camel(field): getattr(default, field) for field in cls.model_fields}
    made = {camel(field) for field in OF_THE_CHART[component]}
    changed = loaded().values[component]["settings"]
    for field, info in cls.model_fields.items():
        name = camel(field)
        if name in changed:
            adapter: TypeAdapter[Any] = TypeAdapter(cast("Any", info.annotation))
            assert said[name] == adapter.validate_python(changed[name])
        elif name not in made:
            assert said[name] == info.get_default(call_default_factory=True), name


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_side_has_its_own_engine(component: str) -> None:
    [other] = COMPONENTS.keys() - {component}
    values = {component: {"settings": {"engine": "quinn"}}}
    assert settings_of(component, values).engine == "quinn"
    assert settings_of(other, values).engine == "auto"


def test_numbers_of_any_kind_are_read_alike() -> None:
    for number in (2_000_000, 2e6, "2000000.0"):
        read = settings_of("client", {"client": {"settings": {"timeout": number}}})
        assert read.timeout == 2_000_000
    for number in (0.25, "0.25"):
        read = settings_of("client", {"client": {"settings": {"timeout": number}}})
        assert read.timeout == 0.25


def test_settings_of_the_command_line_are_read() -> None:
    said = "client.settings.interval=0.5,client.settings.mode={stream,uni},client.settings.size=99"
    read = settings_of("client", helm.parse_set_string(said))
    assert (read.interval, read.mode, read.size) == (0.5, ("stream", "uni"), 99)


def test_numbers_of_the_charts_own_values_are_written_as_those_of_users(tmp_path: Path) -> None:
    # Helm reads those of values.yaml as the text that stands there, not as floating-point ones.
    settings = {"rateLimit": 1_000_000, "maxMessageSize": 10_000_000, "idleTimeout": 0.25}
    values = merged(loaded().values, {"server": {"replicas": 1000, "settings": settings}})
    shutil.copytree(CHART, tmp_path / "chart")
    (tmp_path / "chart" / "values.yaml").write_text(yaml.safe_dump(values))
    written = render(chart=tmp_path / "chart")
    given = render({"server": {"replicas": 1000, "settings": settings}})
    assert written.objects == given.objects


def test_a_setting_of_the_chart_itself_does_not_undo_the_others() -> None:
    defaults = loaded().values["client"]["settings"]
    read = settings_of("client", nested(((("client", "settings", "interval"), 0.5),)))
    assert (read.interval, read.backoff_max) == (0.5, defaults["backoffMax"])


def test_what_the_chart_makes_of_its_defaults() -> None:
    server = settings_of("server", {})
    assert (server.bind_port, server.admin_port, server.auth) == (4433, 8080, "none")
    assert (server.drain_timeout, server.drain_stay_ready) == (25, False)
    client = settings_of("client", {})
    assert client.targets == ("https://pingpong-server.testing.svc:4433/ping",)
    assert (client.all, client.insecure, client.token_file) == (True, False, None)


def test_staying_ready_while_draining_is_handed_on() -> None:
    values = merged({}, {"server": {"drain": {"stayReady": True}}})
    assert settings_of("server", values).drain_stay_ready is True
