"""What a session may do, and what it gets: admission, and handlers by path."""
