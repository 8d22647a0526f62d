"""The fair study of study/protocol.md: its grid, choices on validation images, ledger, statistics and pages."""
