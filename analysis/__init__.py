"""Results store, SQL views, statistics, figures and the report. Imports no torch, no ray, no `study`."""
