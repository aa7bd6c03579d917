"""The subset of HTTP/3 that sessions need."""
