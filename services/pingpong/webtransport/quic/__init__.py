"""The QUIC engine: the interface that the core asks for (`engine`), and two engines behind it.

Of any engine: `engine`, `config`, `connection_ids`, `timers`; `engines` says which there are and
makes an endpoint of one. Of aioquic: `endpoint` has all connections of a socket, `connection` is
one of them, and what they have of aioquic's own is in `aioquic`. Of quinn-proto: `quinn`, on the
crate in services/engine.
"""
