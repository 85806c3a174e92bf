"""Lines through the means of seeds, for figures of a result against a factor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.cohort import Cohort
from analysis.figures.series import Point, describe
from analysis.stats import estimates


def named(key: tuple[Any, ...]) -> tuple[str, ...]:
    """The values of columns of text as names; what is missing has the empty one."""
    return tuple(value or "" for value in key)


def mean_lines(
    look: Cohort, factor: str, places: Mapping[Any, float], *, y: str, scale: float
) -> tuple[tuple[Point, ...], ...]:
    """Return a line for each group that differs in a factor and the seed alone, a point for each value of it.

    Args:
        look: the trials.
        factor: ``depth`` or ``width``, a factor of `Cohort.alike` and a column.
        places: where each value of the factor stands on the horizontal axis.
        y: the column whose mean over seeds is drawn, with its interval.
        scale: factor on y.

    """
    lines = [
        sorted(((value, part) for (value,), part in group.by(factor).items()), key=lambda item: item[0])
        for group in look.alike(factor, "seed")
    ]
    means = iter(estimates(part.numbers(y) for line in lines for _, part in line))
    return tuple(
        tuple(
            Point(
                x=places[value],
                y=scale * mean.mean,
                low=None if mean.low is None else scale * mean.low,
                high=None if mean.high is None else scale * mean.high,
                ids=tuple(r["trial_id"] for r in part),
                text=describe(part),
            )
            for value, part in line
            if (mean := next(means)) is not None
        )
        for line in lines
    )
