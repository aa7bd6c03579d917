"""The error of the admin port."""

from __future__ import annotations


class AdminError(Exception):
    """The admin port cannot start; the text says in one line why, and what to do."""
