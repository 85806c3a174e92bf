"""Series: what a figure draws, as plain numbers, each point tied to the trials behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

from analysis.stats import Row, finite, group_by
from analysis.theme import precision_look, safe
from analysis.wording import precision_label

MAX_LINES = 120
"""Learning curves and probes drawn at most; the caption says when this is a sample."""

SILENT = ("front", "band")
"""Roles that say nothing under the pointer."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mark: where it is, its interval if it has one, the trials behind it, and what the hover says."""

    x: float | str
    y: float
    ids: tuple[str, ...]
    text: str = ""
    low: float | None = None
    high: float | None = None
    value_text: str = ""  # what the hover says in place of y, where y is a stand-in


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one look. `lines` are drawn one after another with a gap between them.

    Attributes:
        role: how a filter treats the points. ``trials``: each shows while its trial does. ``mean``: it is
            recomputed from `column` over the trials left. ``pair``: it shows while its first trial does.
            ``fit``: it shows while every trial behind it does. ``band``: the same, its lines are outlines of
            areas. ``front``: it is found anew.
        keys: the (column, value) pairs that a click on the legend filters by.

    """

    name: str
    lines: tuple[tuple[Point, ...], ...]
    color: str
    role: str
    mode: str = "markers"
    symbol: str = "circle"
    dash: str = "solid"
    size: float = 8
    opacity: float = 1.0
    column: str = ""
    scale: float = 1.0
    keys: tuple[tuple[str, str], ...] = ()
    panel: int = 1

    @property
    def points(self) -> list[Point]:
        """All points, without the gaps."""
        return [point for line in self.lines for point in line]


class Values(list[Any]):
    """The values of a trace. Plotly copies a list several times, value by value, and leaves this as it is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Values:
        return self


def describe(rows: Sequence[Row]) -> str:
    """The hover text of a point: the settings its trials share, how many they are, and their ids."""
    first = rows[0]
    parts = [
        first["model"] or "",
        f"depth {first['depth']}" if finite(first["depth"]) else "",
        f"width {first['width']:g}" if finite(first["width"]) else "",
        first["strategy"] or "",
        precision_label(first),
        f"seed {first['seed']}" if len(rows) == 1 else f"{len(rows)} trials",
    ]
    shown = ", ".join(row["trial_id"] for row in rows[:3]) + (", …" if len(rows) > 3 else "")
    ended = f" · ended {first['outcome']}" if first["outcome"] != "ok" else ""
    return safe(" · ".join(filter(None, parts)) + ended) + f"<br>trial {safe(shown)}"


def traces(series: Iterable[Series], *, x: str, y: str) -> list[go.Scatter]:
    """Scatter traces of the series; `x` and `y` are hover templates with units, such as ``%{y:.3g} MB``."""
    result = []
    named: set[str] = set()
    for one in series:
        points: list[Point | None] = []
        for line in one.lines:
            points += [*line, None]
        points = points[:-1]
        spread = any(p is not None and p.low is not None for p in points)
        many = len(points) > 4_000 and "lines" not in one.mode
        kind = go.Scattergl if many else go.Scatter
        hover: str | list[str] | None = f"{y}<br>{x}<br>%{{text}}<extra></extra>"
        if any(p is not None and p.value_text for p in points):
            hover = [
                f"<b>{p.value_text}</b><br>{x}<br>%{{text}}<extra></extra>"
                if p and p.value_text
                else str(hover)
                for p in points
            ]
        result.append(
            # plotly's checks walk every value twice, which takes most of the time of a large report
            kind(
                _validate=False,
                name=safe(one.name),
                legendgroup=one.name,
                showlegend=one.name not in named and one.role != "band",
                mode=one.mode,
                x=Values(None if p is None else p.x for p in points),
                y=Values(None if p is None else significant(p.y) for p in points),
                text=Values("" if p is None else p.text for p in points),
                customdata=Values("" if p is None else " ".join(p.ids) for p in points),
                hovertemplate=None if one.role in SILENT else hover,
                hoverinfo="skip" if one.role in SILENT else None,
                fill="toself" if one.role == "band" else None,
                connectgaps=False,
                **({} if many else {"cliponaxis": False}),
                opacity=one.opacity,
                marker={
                    "color": one.color,
                    "symbol": one.symbol,
                    "size": one.size,
                    "line": {"width": 1, "color": one.color},
                },
                line={"color": one.color, "dash": one.dash, "width": 0 if one.role == "band" else 1.8},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": Values(_reach(p, up=True) for p in points),
                    "arrayminus": Values(_reach(p, up=False) for p in points),
                    "color": one.color,
                    "thickness": 1.2,
                    "width": 3,
                }
                if spread
                else None,
                yaxis="y" if one.panel == 1 else f"y{one.panel}",
                xaxis="x" if one.panel == 1 else f"x{one.panel}",
                meta={"role": one.role, "column": one.column, "scale": one.scale, "keys": one.keys},
            )
        )
        if one.role != "band":
            named.add(one.name)
    return result


def draw(traces: Sequence[BaseTraceType], layout: go.Layout) -> go.Figure:
    """The figure of these traces, which are valid as they are: checking each value again takes long."""
    return go.Figure(traces, layout, _validate=False)


def legend_entries(series: Iterable[Series], *, role: str) -> list[go.Scatter]:
    """Legend entries in full color for series whose own markers may be muted; they hold no data."""
    return [
        go.Scatter(
            name=safe(one.name),
            legendgroup=one.name,
            mode=one.mode,
            x=[None],
            y=[None],
            customdata=[""],
            hoverinfo="skip",
            marker={"color": one.color, "symbol": one.symbol, "size": one.size},
            meta={"role": "legend", "column": "", "scale": 1.0, "keys": one.keys},
        )
        for one in series
        if one.role == role
    ]


def line_series(
    trials: Sequence[Row],
    by_trial: Mapping[str, Sequence[Row]],
    *,
    x: str,
    y: str,
    scale: float = 1.0,
    panel: int = 1,
    markers: bool = False,
    floor: float | None = None,
    positive: bool = False,
) -> list[Series]:
    """Return one line per trial, a series per precision, from the trial's rows of another table.

    Args:
        trials: the trials to draw.
        by_trial: rows by trial id, in the order they are joined.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        scale: factor on y.
        panel: which panel of the figure.
        markers: mark each point too.
        floor: where a y of exactly zero is drawn.
        positive: leave out values a log axis cannot show.

    """
    series = []
    for label, group in sorted(group_by(trials, precision_label).items()):
        lines = []
        for trial in group:
            text = describe([trial])
            line = []
            for row in by_trial[trial["trial_id"]]:
                value = row[y]
                if not finite(value) or not finite(row[x]) or (positive and value <= 0):
                    continue
                zero = value == 0 and floor is not None
                line.append(
                    Point(
                        x=row[x],
                        y=floor if zero and floor else scale * value,
                        ids=(trial["trial_id"],),
                        text=text,
                        value_text="exactly 0" if zero else "",
                    )
                )
            if line:
                lines.append(tuple(line))
        if lines:
            single = max(map(len, lines)) == 1
            series.append(
                Series(
                    name=label,
                    lines=tuple(lines),
                    **precision_look(group[0]),
                    role="curve",
                    mode="markers" if single else "lines+markers" if markers else "lines",
                    size=6 if single else 4,
                    opacity=0.6,
                    panel=panel,
                    keys=(("precision", label),),
                )
            )
    return series


def significant(value: float, digits: int = 6) -> float:
    """The value to so many significant digits: what a screen can show, in a third of the bytes."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def _reach(point: Point | None, *, up: bool) -> float | None:
    if point is None or point.low is None or point.high is None:
        return None
    return significant(point.high - point.y if up else point.y - point.low)
