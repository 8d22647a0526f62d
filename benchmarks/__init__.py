"""Measurements: what writes docs/performance.md."""
