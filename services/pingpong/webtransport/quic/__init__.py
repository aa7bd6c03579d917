"""The QUIC engine: the interface that the core asks for (`engine`), and aioquic behind it.

Of any engine: `engine`, `config`, `connection_ids`. Of aioquic: `endpoint` has all connections of
a socket, `connection` is one of them, and what they have of aioquic's own is in `aioquic`.
"""
