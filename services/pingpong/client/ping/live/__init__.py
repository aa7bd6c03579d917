"""`pingpong ping --live`: all targets in place, on a terminal."""
