"""Rows on disk as a run writes them: files, rows, leases, checkpoints."""
