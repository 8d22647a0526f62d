"""The project's own science: what writes the pages of both studies from the ledgers in docs/results."""
