"""IsoFLOP curves: loss over size at equal compute, with parabolas and what they are biased by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from analysis.figures.law_points import law_of, look, short
from analysis.figures.series import Point, Series, draw, traces
from analysis.store.store import Store
from analysis.theme import base_layout, log_ticks

MOST = 6
"""Curves at most, spread evenly over compute."""


@dataclass(frozen=True, kw_only=True)
class LawIsoflopInfo:
    """Curves of equal compute as (size, loss).

    Attributes:
        series: The points of each curve, then its parabola.
        curves: How many curves there are, drawn or not.
        loss: The column that is drawn.
        notes: How far the vertex of a parabola is off.
    """

    series: tuple[Series, ...]
    curves: int
    loss: str
    notes: tuple[str, ...]


def info(store: Store) -> LawIsoflopInfo:
    """Takes the curves of the law with the most sizes."""
    found = law_of(store).found
    if found is None or not found.curves:
        return LawIsoflopInfo(series=(), curves=0, loss="", notes=())
    curves = sorted(found.curves, key=lambda curve: -len(curve.parameters))[: 2 * MOST]
    curves = sorted(curves, key=lambda curve: curve.compute)
    last = len(curves) - 1
    shown = [curves[i] for i in sorted({round(k * last / (MOST - 1)) for k in range(MOST)})]
    series = []
    for place, curve in enumerate(shown):
        color, symbol = look(place, len(shown))
        name = f"{curve.compute:.2g} operations"
        marks = tuple(
            Point(x=float(n), y=float(y), ids=ids, text=f"{len(ids)} trainings at {name}")
            for n, y, ids in zip(curve.parameters, curve.loss, curve.trial_ids, strict=True)
        )
        every = tuple(sorted({i for ids in curve.trial_ids for i in ids}))
        sizes = np.geomspace(curve.parameters[0], curve.parameters[-1], 25)
        parabola = tuple(
            Point(x=float(n), y=float(y), ids=every, text="parabola")
            for n, y in zip(sizes, curve.at(sizes), strict=True)
        )
        series += [
            Series(name=name, lines=(marks,), color=color, symbol=symbol, role="trials"),
            Series(name=name, lines=(parabola,), color=color, role="fit", mode="lines", opacity=0.5),
        ]
    notes = [
        "Losses are moved along the law to exactly the compute of their curve, by at most a quarter of it.",
        *(
            f"At {curve.compute:.2g} operations the vertex lies at {short(curve.best)} parameters; on losses "
            f"of the law itself, without noise, the parabola's is {curve.bias:.2f} times the best size."
            for curve in shown
            if curve.best is not None and curve.inside and curve.bias is not None
        ),
    ]
    return LawIsoflopInfo(
        series=tuple(series),
        curves=len(found.curves),
        loss=found.points.names["loss"],
        notes=tuple(notes),
    )


def figure(info: LawIsoflopInfo) -> go.Figure | None:
    """Draws it; None where no three sizes meet at one compute."""
    if not info.series:
        return None
    layout = base_layout(
        title="Loss over size at equal compute", x="size / parameters", y=f"{info.loss} / nats"
    )
    layout.xaxis.type = "log"
    layout.xaxis.update(log_ticks(float(p.x) for one in info.series for p in one.points))
    return draw(traces(info.series, x="%{x:,.0f} parameters", y="<b>%{y:.4f}</b>"), layout)
