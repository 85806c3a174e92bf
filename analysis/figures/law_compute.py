"""Loss over compute: every evaluation behind the law, and the lowest loss that the law gives for a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from analysis.figures.law_points import law_of, look, short, sizes_of
from analysis.figures.series import Point, Series, draw, traces
from analysis.laws.efficient import Efficient, efficient
from analysis.laws.study_law import StudyLaw
from analysis.store.store import Store
from analysis.theme import INK, base_layout, log_ticks

BEYOND = 10
"""The law's line goes on to so many times the largest compute of the rows."""


@dataclass(frozen=True, kw_only=True)
class LawComputeInfo:
    """Evaluations as (operations, loss), a series for each size, and the law's best loss.

    Attributes:
        series: The sizes, then the law within the rows, beyond them, and its interval.
        loss: The column that is drawn.
        notes: The numbers of the law, and what makes it doubtful.
    """

    series: tuple[Series, ...]
    loss: str
    notes: tuple[str, ...]


def info(store: Store) -> LawComputeInfo:
    """Takes the points of the law, and its best size and data for budgets along the axis."""
    law = law_of(store)
    if law.found is None:
        return LawComputeInfo(series=(), loss="", notes=())
    found = law.found
    points, sizes = found.points, sizes_of(found.points)
    series = []
    for place, size in enumerate(sizes):
        color, symbol = look(place, len(sizes))
        at = np.flatnonzero(points.parameters == size)
        at = at[np.argsort(points.compute[at])]
        marks = tuple(
            Point(
                x=float(points.compute[i]),
                y=float(points.loss[i]),
                ids=(points.trial_ids[i],),
                text=f"{short(points.data[i])} {points.unit}<br>{law.texts[points.trial_ids[i]]}",
            )
            for i in at
        )
        name = f"{short(size)} parameters"
        series.append(
            Series(name=name, lines=(marks,), color=color, symbol=symbol, role="trials", opacity=0.8)
        )
    series += _best(found)
    return LawComputeInfo(series=tuple(series), loss=points.names["loss"], notes=tuple(_notes(found)))


def figure(info: LawComputeInfo) -> go.Figure | None:
    """Draws it; None without a law."""
    if not info.series:
        return None
    layout = base_layout(
        title="Loss over compute", x="compute / operations of the model", y=f"{info.loss} / nats"
    )
    for axis, values in (
        (layout.xaxis, [float(p.x) for one in info.series for p in one.points]),
        (layout.yaxis, [p.y for one in info.series for p in one.points]),
    ):
        axis.type = "log"
        axis.update(log_ticks(values))
    layout.xaxis.update(tickformat=".0e", tickmode="auto", exponentformat="power")
    return draw(traces(info.series, x="%{x:.3g} operations", y="<b>%{y:.4f}</b>"), layout)


def _best(found: StudyLaw) -> list[Series]:
    low, high = found.points.compute.min(), found.points.compute.max()
    ids = tuple(sorted(set(found.points.trial_ids)))
    within = [efficient(found.law, float(c), per_pair=found.per_pair) for c in np.geomspace(low, high, 24)]
    beyond = [
        efficient(found.law, float(c), per_pair=found.per_pair) for c in np.geomspace(high, BEYOND * high, 8)
    ]

    def line(best: list[Efficient]) -> tuple[Point, ...]:
        return tuple(
            Point(
                x=one.compute,
                y=one.loss,
                ids=ids,
                text=f"best: {short(one.parameters)} parameters, {short(one.data)} {found.points.unit}",
            )
            for one in best
        )

    every = [*within, *beyond]
    outline = [(one.compute, one.low) for one in every] + [(one.compute, one.high) for one in every[::-1]]
    band = tuple(Point(x=x, y=y, ids=ids) for x, y in [*outline, outline[0]])
    within_line, beyond_line = line(within), line(beyond)
    return [
        Series(name="law, best size", lines=(within_line,), color=INK, role="fit", mode="lines"),
        Series(
            name="law, extrapolated", lines=(beyond_line,), color=INK, role="fit", mode="lines", dash="dot"
        ),
        Series(name="law, extrapolated", lines=(band,), color=INK, role="band", mode="lines", opacity=0.25),
    ]


def _notes(found: StudyLaw) -> list[str]:
    law = found.law
    numbers = ", ".join(
        f"{name} {getattr(law, name):.3g} ({low:.3g} to {high:.3g})"
        for name in ("E", "A", "B", "a", "b")
        for low, high in [law.interval(name)]
    )
    notes = [f"L(N, D) = E + A/N^a + B/D^b with {numbers}: 90 % intervals by bootstrap over trainings."]
    if found.held_out is not None:
        notes.append(
            f"The largest rung ({short(found.held_out.parameters)} parameters), predicted from the others, "
            f"is off by {100 * found.held_out.error:+.1f} %."
        )
    notes.append("The dotted line and its 90 % interval go beyond what was trained.")
    return [*notes, *found.warnings]
