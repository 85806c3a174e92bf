"""Which combinations of parameters a test is run with, where all of them would take too long.

A test that is marked ``covering`` runs with so many combinations that every value of every parameter occurs,
and with ``covering(2)`` every pair of values. A test that is marked ``wide`` runs in a wide run alone, which
has every combination of everything: ``make wide``, or ``pytest --wide``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import pytest


def left_to_wide_runs(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """The tests that only a wide run has."""
    left_out, families = set(), {}
    for item in items:
        marker = item.get_closest_marker("covering")
        if item.get_closest_marker("wide"):
            left_out.add(item)
        elif marker is not None:
            strength = marker.args[0] if marker.args else 1
            families.setdefault((item.path, item.originalname, strength), []).append(item)
    for (*_, strength), family in families.items():
        kept = cover([item.callspec.params for item in family], strength)
        left_out.update(item for number, item in enumerate(family) if number not in kept)
    return left_out


def wide(*values: Any) -> list[Any]:
    """Values of a parameter that wide runs alone have; a tuple gives several parameters."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.wide) for v in values]


def cover(rows: Sequence[dict[str, Any]], strength: int) -> set[int]:
    """The positions of rows in which every combination of so many values that occurs in any row occurs.

    Greedy: the row with most that is new comes next, the first of equals.
    """
    parts = [
        {tuple((key, repr(row[key])) for key in keys) for keys in combinations(sorted(row), strength)}
        for row in rows
    ]
    missing, kept = set().union(*parts), set()
    while missing:
        best = max(range(len(rows)), key=lambda number: (len(parts[number] & missing), -number))
        kept.add(best)
        missing -= parts[best]
    return kept
