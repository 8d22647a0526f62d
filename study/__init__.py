"""The project's own science: what writes docs/study.md and its figures from the ledgers in docs/results."""
