"""`pingpong ping`: one target or several, a person watching."""
