"""The settings of every verb: one frozen class each. How they are read: `command_line`."""

from __future__ import annotations

from .base import Settings, SettingsError, settings_table, unknown_variables
from .certificate import CertificateSettings
from .ping import PingSettings, RunSettings
from .probe import ProbeSettings
from .serve import ServeSettings
from .service import ServiceSettings

__all__ = [
    "CertificateSettings",
    "PingSettings",
    "ProbeSettings",
    "RunSettings",
    "ServeSettings",
    "ServiceSettings",
    "Settings",
    "SettingsError",
    "settings_table",
    "unknown_variables",
]
