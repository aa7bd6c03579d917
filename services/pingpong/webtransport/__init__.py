"""WebTransport over HTTP/3 for both roles, without I/O.

The core (`connection`, `session`, `streams`, ...) is fed bytes by a QUIC engine and
calls a handler; it opens no socket, reads no clock and starts no task. The package
`pingpong.webtransport.asyncio` gives it a UDP socket, timers and awaitable sessions.

Specification: draft-ietf-webtrans-http3-16 and the drafts before it that are still in
use, RFC 9114 (HTTP/3), RFC 9220 (extended CONNECT), RFC 9297 (HTTP datagrams and
capsules), RFC 9204 (QPACK, static table only).
"""
