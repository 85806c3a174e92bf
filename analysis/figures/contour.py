"""What a search found over the two settings that mattered most: its trials, and the ground between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.answers.importance import importance, numeric_settings
from analysis.figures.search_history import searched
from analysis.figures.series import describe
from analysis.score import Score, main_score
from analysis.stats import finite, sample
from analysis.store.store import Store
from analysis.theme import base_layout, safe
from analysis.wording import count_text

CELLS = 40
"""Cells along each side of the shaded ground."""

NEIGHBORS = 6
"""Trials that a cell's shade averages over, nearer ones counting more."""

MOST = 2_000
"""Trials drawn at most."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A setting along one side: its dotted path, and whether its scale is logarithmic."""

    path: str
    log: bool


@dataclass(frozen=True, kw_only=True)
class PlacedTrial:
    """A trial: its values of the two settings, its validation score as drawn, and who it is."""

    values: tuple[float, float]
    score: float
    trial_id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ContourInfo:
    """Trials of a search over two settings.

    Attributes:
        metric: what the trials are judged by.
        axes: the two settings of the largest PED-ANOVA importance that are numbers; empty without them.
        places: the trials.
        notes: how it is to be read.

    """

    metric: Score
    axes: tuple[Scale, ...]
    places: tuple[PlacedTrial, ...]
    notes: tuple[str, ...]


def info(store: Store) -> ContourInfo:
    """Collects the trials that a search proposed and that ended ok."""
    metric = main_score(store.rows("trials"))
    rows = [r for r in searched(store.rows("trials")) if r["outcome"] == "ok" and finite(r[metric.val])]
    found = importance(rows, metric.val, direction="maximize" if metric.better == "max" else "minimize")
    settings = numeric_settings(rows)
    paths = [p for p in found.settings if p in settings][:2] if found else []
    if len(paths) < 2:
        return ContourInfo(metric=metric, axes=(), places=(), notes=())
    first, second = (settings[p] for p in paths)
    places = tuple(
        PlacedTrial(
            values=(first[row["trial_id"]], second[row["trial_id"]]),
            score=metric.scale * row[metric.val],
            trial_id=row["trial_id"],
            text=describe([row]),
        )
        for row in sample(rows, MOST)
    )
    notes = (
        f"{count_text(len(places), 'trial')} over the two numeric settings that mattered most. The shade is "
        f"a distance-weighted mean of the {NEIGHBORS} nearest trials: where no trial is near, it is a guess. "
        "Other settings vary too. Filters do not change the shade.",
    )
    axes = tuple(_scale(path, [p.values[i] for p in places]) for i, path in enumerate(paths))
    return ContourInfo(metric=metric, axes=axes, places=places, notes=notes)


def figure(info: ContourInfo) -> go.Figure | None:
    """Draws it; None without two numeric settings that a search varied."""
    if not info.places:
        return None
    x, y = info.axes
    layout = base_layout(
        title=f"Validation {info.metric.name} over two settings",
        x=f"{safe(x.path)} / as set",
        y=f"{safe(y.path)} / as set",
    )
    layout.xaxis.type, layout.yaxis.type = ("log" if axis.log else "linear" for axis in info.axes)
    sides, shade = _shade(info)
    fixed = {"role": "fixed", "column": "", "scale": 1.0, "keys": []}
    colors: dict[str, Any] = {
        "colorscale": "Viridis",
        "reversescale": info.metric.better == "min",
        "colorbar": {"title": {"text": info.metric.axis.removeprefix("validation ")}, "len": 0.9},
    }
    values = [p.score for p in info.places]
    ends = {"zmin": min(values), "zmax": max(values)}
    ground = go.Contour(
        x=sides[0], y=sides[1], z=shade, **colors, **ends, ncontours=14, line={"width": 0.4},
        opacity=0.75, hoverinfo="skip", showlegend=False, name="between trials", meta=fixed, customdata=[""],
    )  # fmt: skip
    trials = go.Scatter(
        x=[p.values[0] for p in info.places], y=[p.values[1] for p in info.places], mode="markers",
        name="trials",
        customdata=[p.trial_id for p in info.places], text=[p.text for p in info.places], showlegend=False,
        hovertemplate=f"{info.metric.hover.replace('%{y', '%{marker.color')}<br>{safe(x.path)} %{{x:.4g}}<br>"
        f"{safe(y.path)} %{{y:.4g}}<br>%{{text}}<extra></extra>",
        marker={
            "color": values, "colorscale": "Viridis", "reversescale": info.metric.better == "min",
            "cmin": min(values), "cmax": max(values), "size": 9,
            "line": {"width": 1.2, "color": "white"},
        },
        meta={"role": "trials", "column": "", "scale": 1.0, "keys": []},
    )  # fmt: skip
    return go.Figure([ground, trials], layout)


def _scale(path: str, values: list[float]) -> Scale:
    low, high = min(values), max(values)
    return Scale(path=path, log=low > 0 and high / low >= 30)


def _shade(info: ContourInfo) -> tuple[list[list[float]], list[list[float]]]:
    """Positions along both sides, and the score on that grid as seen from the nearest trials."""
    places = np.array([[_scaled(p.values[i], axis) for i, axis in enumerate(info.axes)] for p in info.places])
    low, high = places.min(0), places.max(0)
    span = np.where(high > low, high - low, 1.0)
    places = (places - low) / span
    scores = np.array([p.score for p in info.places])
    steps = np.linspace(0, 1, CELLS)
    shade = []
    for y in steps:
        distances = np.hypot(steps[:, None] - places[:, 0], y - places[:, 1])
        nearest = np.argsort(distances, axis=1)[:, :NEIGHBORS]
        weights = 1 / np.maximum(np.take_along_axis(distances, nearest, axis=1), 1e-6)
        shade.append((weights * scores[nearest]).sum(1) / weights.sum(1))
    sides = []
    for i, axis in enumerate(info.axes):
        values = low[i] + steps * span[i]
        sides.append([float(f"{10**v if axis.log else v:.6g}") for v in values])
    return sides, [[round(float(v), 3) for v in row] for row in shade]


def _scaled(value: float, axis: Scale) -> float:
    return math.log10(value) if axis.log else value
