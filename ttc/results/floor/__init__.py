"""The floor of raw pixels in tables: words, what it is and what to change first."""
