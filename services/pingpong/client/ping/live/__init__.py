"""`pingpong ping --live`: a full-screen view of all targets."""
