"""Processes that share one UDP port."""
