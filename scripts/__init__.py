"""Commands for users; each runs by itself, none imports another."""
