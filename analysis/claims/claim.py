"""A claim of the paper, and what the rows of a store say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.stats import Estimate, estimate
from analysis.store.store import Store

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the rows say of a claim.

    Attributes:
        holds: whether they meet the claim's expectation.
        figure: the measured figure in words, with what it was measured on.
        value: the figure as a number, in the unit of the claim's metric, with its interval and n.
        trials: ids of the trials behind it.
        hardware: names of the devices they ran on.

    """

    holds: bool
    figure: str
    value: Estimate | None
    trials: tuple[str, ...]
    hardware: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a claim has no verdict: which rows it takes. `figure` may tell what smaller-scale rows show."""

    needs: str
    figure: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper.

    Attributes:
        number: its place in the list.
        name: a few words.
        statement: what is claimed.
        source: section, figure or table of the paper, or who else claims it.
        metric: what is measured, with its unit.
        expected: what a true claim gives.
        method: how the rows are turned into the figure, and the limit of the verdict.
        study: the built-in study whose rows fill it, as `revstudy run` takes it.
        rule: gives the evidence.

    """

    number: int
    name: str
    statement: str
    source: str
    metric: str
    expected: str
    method: str
    study: str
    rule: Callable[[Store], Evidence | Missing]


def select(store: Store, query: str) -> list[Row]:
    """The rows of one SELECT over the views, ordered by their columns from left to right.

    DuckDB gives the rows of a join or a group in any order. What is told of them must not depend on it.

    Returns:
        The rows as dicts.
    """
    return store.sql(f"SELECT * FROM ({query}) ORDER BY ALL").to_pylist()


def evidence(holds: bool, figure: str, values: Iterable[float], rows: Sequence[Row]) -> Evidence:
    """Evidence from rows with ``trial_id`` and ``device``, and of pairs ``twin_id``."""
    ids = {row[key] for row in rows for key in ("trial_id", "twin_id") if row.get(key)}
    return Evidence(
        holds=holds,
        figure=figure,
        value=estimate(values),
        trials=tuple(sorted(ids)),
        hardware=tuple(sorted({row["device"] for row in rows if row.get("device")})),
    )
