"""The server: answers pings over WebTransport."""
