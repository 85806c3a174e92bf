"""Residuals of the law of loss over size: what it misses, and whether it misses by size or by data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from analysis.figures.law_points import law_of, look, short
from analysis.figures.series import Point, Series, draw, traces
from analysis.store.store import Store
from analysis.theme import base_layout, log_ticks

MOST = 6
"""Ranges of data that have a color of their own."""


@dataclass(frozen=True, kw_only=True)
class LawResidualsInfo:
    """Measured over predicted loss, less one, in percent, by size; a series for each range of data.

    Attributes:
        series: The points.
        notes: The spread of the residuals.
    """

    series: tuple[Series, ...]
    notes: tuple[str, ...]


def info(store: Store) -> LawResidualsInfo:
    """Takes the residuals of the law, in ranges of equal factors of data."""
    law = law_of(store)
    if law.found is None:
        return LawResidualsInfo(series=(), notes=())
    points = law.found.points
    percent = 100 * np.expm1(law.found.law.residuals)
    amounts = np.unique(points.data)
    edges = np.geomspace(amounts[0], amounts[-1] * 1.0001, min(MOST, len(amounts)) + 1)
    series = []
    for place in range(len(edges) - 1):
        inside = np.flatnonzero((points.data >= edges[place]) & (points.data < edges[place + 1]))
        if not len(inside):
            continue
        color, symbol = look(place, len(edges) - 1)
        marks = tuple(
            Point(
                x=float(points.parameters[i]),
                y=float(percent[i]),
                ids=(points.trial_ids[i],),
                text=f"{short(points.data[i])} {points.unit}<br>{law.texts[points.trial_ids[i]]}",
            )
            for i in inside
        )
        low, high = points.data[inside].min(), points.data[inside].max()
        name = short(low) if low == high else f"{short(low)} to {short(high)}"
        series.append(
            Series(
                name=f"{name} {points.unit}",
                lines=(marks,),
                color=color,
                symbol=symbol,
                role="trials",
                opacity=0.8,
            )
        )
    spread = float(np.sqrt(np.mean(percent**2)))
    notes = (
        f"The root mean square of the residuals is {spread:.2g} %. A trend with size, or one color above and "
        "another below, would say that the form of the law is wrong.",
    )
    return LawResidualsInfo(series=tuple(series), notes=notes)


def figure(info: LawResidualsInfo) -> go.Figure | None:
    """Draws it; None without a law."""
    if not info.series:
        return None
    layout = base_layout(
        title="Residuals of the law",
        x="size / parameters",
        y="measured over predicted, less 1 / %",
        height=360,
    )
    layout.xaxis.type = "log"
    layout.xaxis.update(log_ticks(float(p.x) for one in info.series for p in one.points))
    return draw(traces(info.series, x="%{x:,.0f} parameters", y="<b>%{y:+.2f} %</b>"), layout)
