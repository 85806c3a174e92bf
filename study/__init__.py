"""Sweeps of reversible networks on Ray: the study file, its plan, and the trials."""
