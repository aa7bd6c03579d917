"""The server's metrics: names, help texts and labels. The values are counted elsewhere."""

from __future__ import annotations

from ..telemetry.metrics import Spec
from ..telemetry.process import MERGES, service_specs
from .sessions.counters import DROP_REASONS, ECHO, MODES, Result

HANDSHAKE_RESULTS = ("completed", "failed", "refused")

_P = "pingpong_server_"

SESSIONS_ACTIVE = Spec(f"{_P}sessions_active", "gauge", "Open sessions.")
SESSIONS = Spec(
    f"{_P}sessions_total",
    "counter",
    "Requests for sessions, by result.",
    {"result": tuple(Result)},
)
SESSION_DURATION = Spec(
    f"{_P}session_duration_seconds",
    "histogram",
    "Duration of sessions that have ended.",
)
CONNECTIONS_ACTIVE = Spec(f"{_P}connections_active", "gauge", "Open QUIC connections.")
CONNECTIONS_UNUSED = Spec(
    f"{_P}connections_unused_total",
    "counter",
    "Connections closed because they had no session for 30 seconds.",
)
HANDSHAKES_ACTIVE = Spec(f"{_P}handshakes_active", "gauge", "QUIC handshakes in progress.")
HANDSHAKES = Spec(
    f"{_P}handshakes_total",
    "counter",
    "QUIC handshakes, by result; refused: the server had its maximum number of connections.",
    {"result": HANDSHAKE_RESULTS},
)
RETRIES_SENT = Spec(
    f"{_P}retries_sent_total",
    "counter",
    "Retry packets sent, to validate the address of a client before its handshake.",
)
RETRIES_INVALID = Spec(
    f"{_P}retries_invalid_total", "counter", "Retry tokens from clients that were wrong or expired."
)
RESETS_SENT = Spec(
    f"{_P}stateless_resets_sent_total",
    "counter",
    "Stateless resets sent, for connections to a server or worker that has ended.",
)
VERSION_NEGOTIATIONS_SENT = Spec(
    f"{_P}version_negotiations_sent_total",
    "counter",
    "Version Negotiation packets sent, to clients with an unsupported version of QUIC.",
)
HANDED_OVER = Spec(
    f"{_P}packets_handed_over_total",
    "counter",
    "UDP packets that arrived at another worker, and were forwarded to the connection's worker.",
)
PACKETS_DROPPED = Spec(
    f"{_P}packets_dropped_total",
    "counter",
    "UDP packets that belong to no connection, or are not QUIC.",
)
PACKETS_OVERFLOWED = Spec(
    f"{_P}packets_overflowed_total",
    "counter",
    "UDP packets that the kernel dropped because the socket's receive buffer was full.",
)
PACKETS_THROTTLED = Spec(
    f"{_P}packets_throttled_total",
    "counter",
    "UDP packets dropped because too many of the same connection were waiting.",
)
BUFFERS_EXCEEDED = Spec(
    f"{_P}buffers_exceeded_total",
    "counter",
    "Connections closed because all together buffered too many bytes, and these the most.",
)
PACKETS_UNSENT = Spec(
    f"{_P}packets_unsent_total",
    "counter",
    "UDP packets that the kernel did not accept for sending.",
)
PROTOCOL_ERRORS = Spec(
    f"{_P}protocol_errors_total",
    "counter",
    "Protocol violations by clients, including data that they left incomplete for too long.",
)
RECEIVED = Spec(
    f"{_P}messages_received_total",
    "counter",
    "Messages received that are to be answered.",
    {"mode": MODES},
)
ANSWERED = Spec(f"{_P}messages_answered_total", "counter", "Messages answered.", {"mode": MODES})
DROPPED = Spec(
    f"{_P}messages_dropped_total",
    "counter",
    "Messages not answered, by reason.",
    {"mode": (*MODES, ECHO), "reason": DROP_REASONS},
)
RECEIVED_BYTES = Spec(f"{_P}received_bytes_total", "counter", "Bytes of messages received.")
SENT_BYTES = Spec(f"{_P}sent_bytes_total", "counter", "Bytes of answers sent.")
ANSWER_DURATION = Spec(
    f"{_P}answer_duration_seconds",
    "histogram",
    "Time from the arrival of a ping at the server to its answer.",
)
DRAINING = Spec(f"{_P}draining", "gauge", "1 while the server drains its sessions.", merge=max)
CERTIFICATE_NOT_AFTER = Spec(
    f"{_P}certificate_not_after_timestamp_seconds",
    "gauge",
    "Time at which the certificate expires, in seconds since 1970.",
    merge=min,
)
CERTIFICATE_RELOAD_FAILED = Spec(
    f"{_P}certificate_reload_failed",
    "gauge",
    "1 while the certificate files have changed but cannot be used.",
)
SELF_PINGS = Spec(f"{_P}self_pings_total", "counter", "Pings from the server to itself.")
TOKENS_RELOAD_FAILED = Spec(
    f"{_P}token_file_reload_failed",
    "gauge",
    "1 while the token file has changed but cannot be used.",
    merge=max,
)
WORKERS = Spec(f"{_P}workers", "gauge", "Running worker processes.")
WORKER_RESTARTS = Spec(
    f"{_P}worker_restarts_total", "counter", "Workers that died and were replaced."
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
