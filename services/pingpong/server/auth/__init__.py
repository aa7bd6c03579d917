"""Bearer tokens: from a file, or verified by the cluster."""
