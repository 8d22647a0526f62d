"""Frozen heads on data of another place: frozen.py says what is frozen, heads.py finds it, measure.py compares."""
