"""Programs that measure: each prints a table and writes its rows as Parquet. See README.md."""
