"""Sessions of the server: admission, and handlers by path."""
