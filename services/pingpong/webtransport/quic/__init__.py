"""The QUIC engine: the interface that the core asks for (`engine`), and aioquic behind it."""
