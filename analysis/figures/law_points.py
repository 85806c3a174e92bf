"""What the figures of the law of loss share: the law of a store, fitted once, and the look of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError
from analysis.figures.series import describe
from analysis.laws.least_loss import Array
from analysis.laws.observations import Observations, observe
from analysis.laws.study_law import StudyLaw, fit_study
from analysis.store.store import Store

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "star")
RESAMPLES = 200
"""Of the intervals in figures; `revstudy fit` takes more."""
MOST = 4_000
"""Evaluations that a page fits a law to, which takes seconds."""
LEAST = 3
"""Sizes and amounts of data without which a figure of a law would show nothing but its assumptions."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """The law of a store, or why there is none.

    Attributes:
        found: The law; None where the rows hold none.
        reason: Why not.
        texts: What the hover says of each trial.
    """

    found: StudyLaw | None
    reason: str = ""
    texts: Mapping[str, str]


def law_of(store: Store) -> Law:
    """Fit the law of a store's rows; several figures ask for the same."""
    return store.remember("law of loss", lambda: _fit(store))


def _fit(store: Store) -> Law:
    try:
        points = observe(store)
        if len(points) > MOST:
            reason = f"{len(points):,} evaluations are more than a page fits a law to; revstudy fit does."
            return Law(found=None, reason=reason, texts={})
        for name, values in (("sizes", points.parameters), ("amounts of data", points.data)):
            if len(np.unique(values)) < LEAST:
                few = len(np.unique(values))
                return Law(found=None, reason=f"A law needs {LEAST} {name}; here are {few}.", texts={})
        found = fit_study(store, resamples=RESAMPLES)
    except AnalysisError as error:
        return Law(found=None, reason=str(error), texts={})
    rows = store.rows_of("trials", points.trial_ids)
    return Law(found=found, texts={row["trial_id"]: describe([row]) for row in rows})


def sizes_of(points: Observations) -> Array:
    """The different sizes, ascending."""
    return np.unique(points.parameters)


def look(place: int, count: int) -> tuple[str, str]:
    """Color and symbol of the size, or the amount, at a place among so many."""
    step = place if count <= len(COLORS) else place * len(COLORS) // count
    return COLORS[step], SYMBOLS[place % len(SYMBOLS)]


def short(value: float) -> str:
    """Return a count with three digits and a unit.

    >>> short(12640.0), short(1048576.0)
    ('12.6 k', '1.05 M')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
