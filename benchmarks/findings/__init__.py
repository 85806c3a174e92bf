"""docs/findings.md, written from the rows in benchmarks/results: no number of that page is typed by hand."""
