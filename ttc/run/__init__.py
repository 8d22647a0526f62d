"""A run on disk and its process: folder, log, checkpoint, ledger, manifest, device and signals."""
