"""Settings read from words and variables, and the mistakes in them."""

from __future__ import annotations

import pytest

from pingpong.settings import (
    CertificateSettings,
    PingSettings,
    ProbeSettings,
    RunSettings,
    ServeSettings,
    Settings,
    SettingsError,
)

ALL: list[type[Settings]] = [
    ServeSettings,
    ProbeSettings,
    PingSettings,
    RunSettings,
    CertificateSettings,
]
SHA256 = bytes(range(100, 132))


def ping(*argv: str, **environ: str) -> PingSettings:
    return PingSettings.parse(argv, environ)


def mistakes(cls: type[Settings], *argv: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        cls.parse(argv, environ)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    assert all("\n" not in mistake for mistake in caught.value.mistakes)
    return caught.value.mistakes
