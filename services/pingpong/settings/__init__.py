"""The settings of every verb: one frozen class each. How they are read: `base`."""

from __future__ import annotations

from .base import ServiceSettings, Settings, unknown_variables
from .certificate import CertificateSettings
from .command_line import SettingsError, settings_table
from .ping import PingSettings, RunSettings
from .probe import ProbeSettings
from .serve import ServeSettings

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
