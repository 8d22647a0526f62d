"""Frozen heads on other data: frozen.py says what is frozen, heads.py loads it, measure.py compares, seen.py doubts."""
