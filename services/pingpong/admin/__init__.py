"""The admin port: health, metrics, version and settings over HTTP.

Users import `Admin` and `AdminError` from here.
"""

from __future__ import annotations

from .admin import Admin
from .errors import AdminError

__all__ = ["Admin", "AdminError"]
