"""Trials as lines over parallel axes: settings on the left, what they cost and gain on the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.pareto import pareto_mask
from analysis.score import main_score
from analysis.stats import Row, finite, group_by, sample
from analysis.store.store import Store
from analysis.strategies import strategy_color
from analysis.theme import GRID, base_layout, safe
from analysis.wording import MB, count_text, error_text, precision_label, precision_rank

MAX_LINES = 240


@dataclass(frozen=True, kw_only=True)
class ParallelAxis:
    """One of the parallel axes.

    Attributes:
        column: the column it shows; ``precision`` is the arithmetic in words.
        title: its name with its unit.
        ticks: (position from 0 at the bottom to 1, label) of its marks.

    """

    column: str
    title: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, kw_only=True)
class ParallelInfo:
    """One line per trial through (axis number, position); `shown` of `trials` are drawn."""

    axes: tuple[ParallelAxis, ...]
    series: tuple[Series, ...]
    shown: int
    trials: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """How a column becomes a position: `scale` multiplies values for display."""

    column: str
    title: str
    log: bool = False
    scale: float = 1.0


_SCALES = (
    _Scale(column="depth", title="depth<br>layers"),
    _Scale(column="width", title="width<br>multiple"),
    _Scale(column="precision", title="precision"),
    _Scale(column="learning_rate", title="learning<br>rate", log=True),
    _Scale(column="memory_peak_bytes", title="peak memory<br>MB", log=True, scale=1 / MB),
    _Scale(column="step_time_s", title="step time<br>ms", log=True, scale=1000),
    _Scale(column="gradient_rel_error", title="gradient error<br>relative", log=True),
)


def info(store: Store) -> ParallelInfo:
    """Collects the trials that ended ok with a score and a peak of memory."""
    metric = main_score(store.rows("trials"))
    rows = [
        r
        for r in store.rows("trials")
        if r["outcome"] == "ok" and finite(r[metric.val]) and finite(r["memory_peak_bytes"])
    ]
    last = _Scale(
        column=metric.val, title=f"validation<br>{metric.name} {metric.unit}".rstrip(), scale=metric.scale
    )
    placed = [(axis, places) for s in (*_SCALES, last) if (made := _axis(s, rows)) for axis, places in [made]]
    if not any(axis.column == last.column for axis, _ in placed) or len(placed) < 3:
        return ParallelInfo(axes=(), series=(), shown=0, trials=len(rows), notes=())
    mask = pareto_mask([(r[metric.val], r["memory_peak_bytes"]) for r in rows], (metric.better, "min"))
    front = [r for r, on in zip(rows, mask, strict=True) if on]
    on_front = {r["trial_id"] for r in front}
    chosen = front[:MAX_LINES] + sample(
        [r for r in rows if r["trial_id"] not in on_front], max(0, MAX_LINES - len(front))
    )
    series = []
    for strategy, group in sorted(group_by(chosen, lambda r: r["strategy"] or "").items()):
        series.append(
            Series(
                name=strategy,
                lines=tuple(_line(r, placed) for r in group),
                color=strategy_color(strategy),
                role="trials",
                mode="lines+markers",
                size=4,
                opacity=0.45,
                keys=(("strategy", strategy),),
            )
        )
    which = (
        f"All {count_text(len(rows), 'trial')} that ended ok"
        if len(chosen) == len(rows)
        else f"{len(chosen)} of {count_text(len(rows), 'trial')} that ended ok: those on the front of "
        f"{metric.name} and peak memory, and a sample spread evenly over the rest"
    )
    notes = (
        f"{which}. A line breaks where a trial has no value, as a gradient error where nothing is rebuilt.",
    )
    return ParallelInfo(
        axes=tuple(axis for axis, _ in placed),
        series=tuple(series),
        shown=len(chosen),
        trials=len(rows),
        notes=notes,
    )


def figure(info: ParallelInfo) -> go.Figure | None:
    """Draws it; None if there are fewer than three axes with more than one value."""
    if not info.series:
        return None
    layout = base_layout(title="Trials over parallel axes", x="", y="", height=460)
    layout.xaxis.update(
        tickmode="array",
        tickvals=list(range(len(info.axes))),
        ticktext=[axis.title for axis in info.axes],
        range=[-0.35, len(info.axes) - 0.45],
        showgrid=False,
        ticks="",
        fixedrange=True,
    )
    layout.yaxis.update(visible=False, range=[-0.06, 1.06], fixedrange=True)
    layout.margin.l = 24
    layout.dragmode = "select"
    line = {"type": "line", "y0": 0, "y1": 1, "line": {"color": GRID, "width": 2}, "layer": "below"}
    mark = {"showarrow": False, "xanchor": "left", "xshift": 6, "font": {"size": 10.5}, "opacity": 0.85}
    layout.shapes = [{**line, "x0": number, "x1": number} for number in range(len(info.axes))]
    layout.annotations = [
        {**mark, "x": number, "y": position, "text": safe(text)}
        for number, axis in enumerate(info.axes)
        for position, text in axis.ticks
    ]
    return draw(traces(info.series, x="", y="%{y}"), layout)


def _axis(scale: _Scale, rows: Sequence[Row]) -> tuple[ParallelAxis, dict[str, tuple[float, str]]] | None:
    """The axis, and each trial's position and words on it; None where the trials do not differ."""
    if scale.column == "precision":
        words = sorted({precision_label(r) for r in rows}, key=precision_rank)
        if len(words) < 2:
            return None
        at = {word: i / (len(words) - 1) for i, word in enumerate(words)}
        ticks = tuple((position, word) for word, position in at.items())
        places = {r["trial_id"]: (at[precision_label(r)], precision_label(r)) for r in rows}
        return ParallelAxis(column=scale.column, title=scale.title, ticks=ticks), places
    values = {
        r["trial_id"]: scale.scale * r[scale.column]
        for r in rows
        if finite(r[scale.column]) and (not scale.log or r[scale.column] >= 0)
    }
    positive = [v for v in values.values() if v > 0 or not scale.log]
    if len(set(values.values())) < 2 or not positive:
        return None
    # on a log axis exactly zero has a place of its own, below the smallest positive value
    zero = scale.log and any(v == 0 for v in values.values())
    low, high = (_transform(end, scale) for end in (min(positive), max(positive)))
    bottom = 0.12 if zero else 0.0

    def position(value: float) -> float:
        if scale.log and value == 0:
            return 0.0
        return bottom + (1 - bottom) * (_transform(value, scale) - low) / ((high - low) or 1)

    few = sorted(set(positive))
    marks = few if len(few) <= 6 and not scale.log else _marks(low, high, scale)
    labels = [(position(v), _text(v, scale)) for v in marks]
    if zero:
        labels.insert(0, (0.0, "exactly 0"))
    axis = ParallelAxis(column=scale.column, title=scale.title, ticks=tuple(labels))
    return axis, {i: (position(v), _text(v, scale)) for i, v in values.items()}


def _marks(low: float, high: float, scale: _Scale) -> list[float]:
    places = [low + (high - low) * i / 3 for i in range(4)] if high > low else [low]
    return [10**p if scale.log else p for p in places]


def _transform(value: float, scale: _Scale) -> float:
    return math.log10(value) if scale.log else value


def _text(value: float, scale: _Scale) -> str:
    return error_text(value) if scale.column.endswith("error") else f"{value:.3g}"


def _line(row: Row, placed: Sequence[tuple[ParallelAxis, dict[str, tuple[float, str]]]]) -> tuple[Point, ...]:
    points = []
    for number, (axis, places) in enumerate(placed):
        if row["trial_id"] in places:
            position, words = places[row["trial_id"]]
            name = axis.title.replace("<br>", " / ", 1) if axis.column != "precision" else "precision"
            points.append(
                Point(
                    x=number,
                    y=position,
                    ids=(row["trial_id"],),
                    text=describe([row]),
                    value_text=f"{name}: {safe(words)}",
                )
            )
    return tuple(points)
