"""Trials on Ray: what hands them out, trains them, and writes down those whose process was lost.

`study.execution` calls `tune.run_batch` with jobs; `progress` is what it tells meanwhile. A new kind of
process that trains goes beside `actor` and `group`, a new way to choose trials beside `job_queue` and
`search`.
"""
