"""`pingpong probe`: a service that probes targets and exposes metrics."""
