"""Logs, metrics, health, and the admin port that serves them."""
