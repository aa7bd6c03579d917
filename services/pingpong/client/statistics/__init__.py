"""What became of every probe, and how long the answers took."""
