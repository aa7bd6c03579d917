"""The link engine: dials, keeps a session with a target, sends probes on a schedule, and follows them."""
