"""Trials on Ray: what runs them, and what becomes of those whose process was lost."""
