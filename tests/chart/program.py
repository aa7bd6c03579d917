"""What the program makes of a container: its own settings, read from the rendered variables."""

from __future__ import annotations

import functools
from typing import Any

from pingpong.settings import (
    CertificateSettings,
    PingSettings,
    ProbeSettings,
    ServeSettings,
    Settings,
    SettingsError,
    unknown_variables,
)
from tests.chart.rendering import Object

__all__ = ["Settings", "SettingsError", "files", "settings", "variables"]

IMAGES = {"server": "serve", "client": "probe"}
"""What the image of a container of that name does without arguments."""

VERBS: dict[str, type[Settings]] = {
    cls.verb: cls for cls in (ServeSettings, ProbeSettings, PingSettings, CertificateSettings)
}


def variables(container: Object) -> dict[str, str]:
    """The environment of a container; what is taken from elsewhere has a stand-in."""
    return {
        each["name"]: each.get("value", "from-elsewhere") for each in container.get("env") or []
    }


def settings(container: Object) -> Any:
    """The settings that the program reads in a container.

    Raises:
        SettingsError: it would refuse them, and end.
        AssertionError: it would warn of a variable that is no setting.
    """
    # On the image's PATH that is the program alone, also where the entry point is another one.
    command = container.get("command", ["pingpong"])
    assert command == ["pingpong"], "the image's own entry point makes the program process 1"
    assert "args" in container or container["name"] in IMAGES, "whose image is it?"
    verb, *options = container.get("args") or [IMAGES[container["name"]]]
    environ = variables(container)
    unknown = unknown_variables([VERBS[verb]], environ)
    assert not unknown, "; ".join(unknown)
    return _parse(VERBS[verb], tuple(options), tuple(sorted(environ.items())))


@functools.cache  # reading takes longer than rendering, and most containers are alike
def _parse(
    cls: type[Settings], options: tuple[str, ...], environ: tuple[tuple[str, str], ...]
) -> Settings:
    return cls.parse(options, dict(environ))


def files(container: Object, volumes: list[Object]) -> dict[str, str]:
    """The files that a container's volumes bring, each with the key or the like that it is from."""
    found = {}
    for mount in container.get("volumeMounts") or []:
        assert "subPath" not in mount, "a file of a subPath is never replaced while the pod runs"
        for volume in volumes:
            if volume["name"] == mount["name"]:
                for path, source in _files_of(volume):
                    found[f"{mount['mountPath']}/{path}"] = source
    return found


def _files_of(volume: Object) -> list[tuple[str, str]]:
    if "projected" in volume:
        return [each for part in volume["projected"]["sources"] for each in _files_of(part)]
    if "serviceAccountToken" in volume:
        token = volume["serviceAccountToken"]
        return [(token["path"], f"token for {token['audience']}")]
    for kind in ("secret", "configMap"):
        if kind in volume:
            source = volume[kind]
            name = source.get("secretName") or source.get("name")
            return [(item["path"], f"{kind} {name} {item['key']}") for item in source["items"]]
    return []
