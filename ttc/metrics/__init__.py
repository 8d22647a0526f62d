"""Representation metrics, classification metrics and figures."""
