"""The settings of every verb: one frozen class each. How they are read: `command_line`."""

from __future__ import annotations

from .certificate_settings import CertificateSettings
from .command_line import Settings, SettingsError, settings_table, unknown_variables
from .ping_settings import PingSettings, RunSettings
from .probe_settings import ProbeSettings
from .serve_settings import ServeSettings
from .service_settings import ServiceSettings

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
