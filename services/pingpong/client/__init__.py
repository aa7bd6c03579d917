"""The client: it sends pings, measures the answers and reports what it found."""
