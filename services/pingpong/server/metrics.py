"""What the server measures: names, help texts and labels. Values are counted where they arise."""

from __future__ import annotations

from ..telemetry.metrics import Spec
from ..telemetry.process import MERGES, service_specs
from .sessions.counters import DROP_REASONS, ECHO, MODES, Result

HANDSHAKE_RESULTS = ("completed", "failed", "refused")

_P = "pingpong_server_"

SESSIONS_ACTIVE = Spec(f"{_P}sessions_active", "gauge", "Sessions that are open.")
SESSIONS = Spec(
    f"{_P}sessions_total",
    "counter",
    "Requests for sessions, by what became of them.",
    {"result": tuple(Result)},
)
SESSION_DURATION = Spec(
    f"{_P}session_duration_seconds",
    "histogram",
    "How long sessions lasted that are over.",
)
CONNECTIONS_ACTIVE = Spec(f"{_P}connections_active", "gauge", "QUIC connections that are open.")
CONNECTIONS_UNUSED = Spec(
    f"{_P}connections_unused_total",
    "counter",
    "Connections closed because their clients had no session on them for 30 seconds.",
)
HANDSHAKES_ACTIVE = Spec(
    f"{_P}handshakes_active", "gauge", "QUIC handshakes of clients that are not complete yet."
)
HANDSHAKES = Spec(
    f"{_P}handshakes_total",
    "counter",
    "QUIC handshakes that are over; refused: the server had as many connections as it takes.",
    {"result": HANDSHAKE_RESULTS},
)
RETRIES_SENT = Spec(
    f"{_P}retries_sent_total",
    "counter",
    "Clients asked to prove their address before a handshake (QUIC's Retry).",
)
RETRIES_INVALID = Spec(
    f"{_P}retries_invalid_total", "counter", "Proofs of an address that were wrong or too old."
)
RESETS_SENT = Spec(
    f"{_P}stateless_resets_sent_total",
    "counter",
    "Stateless resets sent: the client's connection was to a server or a worker that has ended.",
)
VERSION_NEGOTIATIONS_SENT = Spec(
    f"{_P}version_negotiations_sent_total",
    "counter",
    "Version negotiations sent: the client's version of QUIC is not spoken here.",
)
HANDED_OVER = Spec(
    f"{_P}packets_handed_over_total",
    "counter",
    "UDP packets that came to another worker than the one that has the connection.",
)
PACKETS_DROPPED = Spec(
    f"{_P}packets_dropped_total",
    "counter",
    "UDP packets that belong to no connection, or are no QUIC.",
)
PACKETS_OVERFLOWED = Spec(
    f"{_P}packets_overflowed_total",
    "counter",
    "UDP packets that the kernel dropped since the socket's buffer was full.",
)
PACKETS_THROTTLED = Spec(
    f"{_P}packets_throttled_total",
    "counter",
    "UDP packets dropped because too many of their connection's waited already.",
)
BUFFERS_EXCEEDED = Spec(
    f"{_P}buffers_exceeded_total",
    "counter",
    "Connections closed because all together kept too many bytes, and these the most.",
)
PACKETS_UNSENT = Spec(
    f"{_P}packets_unsent_total", "counter", "UDP packets that the kernel did not take."
)
PROTOCOL_ERRORS = Spec(
    f"{_P}protocol_errors_total",
    "counter",
    "Times that a client broke the protocol's rules, or left something incomplete for too long.",
)
RECEIVED = Spec(
    f"{_P}messages_received_total",
    "counter",
    "Messages that deserve an answer.",
    {"mode": MODES},
)
ANSWERED = Spec(f"{_P}messages_answered_total", "counter", "Messages answered.", {"mode": MODES})
DROPPED = Spec(
    f"{_P}messages_dropped_total",
    "counter",
    "Messages that got no answer, by reason.",
    {"mode": (*MODES, ECHO), "reason": DROP_REASONS},
)
RECEIVED_BYTES = Spec(f"{_P}received_bytes_total", "counter", "Bytes of messages received.")
SENT_BYTES = Spec(f"{_P}sent_bytes_total", "counter", "Bytes of answers sent.")
ANSWER_DURATION = Spec(
    f"{_P}answer_duration_seconds",
    "histogram",
    "The server's own time with a ping, from the packet's arrival to its answer.",
)
DRAINING = Spec(
    f"{_P}draining", "gauge", "1 while the server asks its sessions to leave.", merge=max
)
CERTIFICATE_NOT_AFTER = Spec(
    f"{_P}certificate_not_after_timestamp_seconds",
    "gauge",
    "When the certificate expires, in seconds since 1970.",
    merge=min,
)
CERTIFICATE_RELOAD_FAILED = Spec(
    f"{_P}certificate_reload_failed",
    "gauge",
    "1 while the certificate's files have changed, but cannot be used.",
)
SELF_PINGS = Spec(f"{_P}self_pings_total", "counter", "Pings of the server to itself.")
TOKENS_RELOAD_FAILED = Spec(
    f"{_P}token_file_reload_failed",
    "gauge",
    "1 while the token file has changed, but cannot be used.",
    merge=max,
)
WORKERS = Spec(f"{_P}workers", "gauge", "Worker processes that run.")
WORKER_RESTARTS = Spec(
    f"{_P}worker_restarts_total", "counter", "Workers that died, and were replaced."
)
EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO = service_specs(_P)

SPECS = (
    *(SESSIONS_ACTIVE, SESSIONS, SESSION_DURATION, CONNECTIONS_ACTIVE, CONNECTIONS_UNUSED),
    *(HANDSHAKES_ACTIVE, HANDSHAKES, RETRIES_SENT, RETRIES_INVALID, RESETS_SENT),
    VERSION_NEGOTIATIONS_SENT,
    *(RECEIVED, ANSWERED, DROPPED, RECEIVED_BYTES, SENT_BYTES, ANSWER_DURATION),
    HANDED_OVER,
    *(PACKETS_DROPPED, PACKETS_OVERFLOWED, PACKETS_THROTTLED, PACKETS_UNSENT),
    *(BUFFERS_EXCEEDED, PROTOCOL_ERRORS),
    *(DRAINING, CERTIFICATE_NOT_AFTER, CERTIFICATE_RELOAD_FAILED, TOKENS_RELOAD_FAILED),
    *(SELF_PINGS, WORKERS, WORKER_RESTARTS, EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO),
)
"""All of them."""

GAUGES = {**MERGES, **{spec.name: spec.merge for spec in SPECS if spec.kind == "gauge"}}
"""How the gauges of several workers combine."""
