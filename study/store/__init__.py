"""Rows on disk: files, rows, leases and checkpoints of a store that a run writes.

Rows are read by `analysis.store` alone; `reader` asks it for what a run wants to know. Leases say who trains
what: `leases` takes and gives them, `lease_files` and `lease_objects` keep them. A new kind of file of a
store goes here, and is written through `files`.
"""
