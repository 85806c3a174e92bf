"""Gradient error against peak memory: what a smaller footprint costs in fidelity, and the front of both."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.cohort import cohort_of
from analysis.faithful import GRADIENT_LIMIT, LIMIT_TEXT
from analysis.figures.error_depth import set_error_axis, zero_place
from analysis.figures.series import Point, Series, describe, draw, legend_entries, traces
from analysis.pareto import pareto_mask
from analysis.stats import Row, group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL, is_exact, strategy_color
from analysis.theme import base_layout, log_ticks, precision_look
from analysis.wording import MB, count_text, precision_label, precision_rank

NEAR = 1e-3
"""The share of the limit from which on errors are so near that the limit is drawn."""


@dataclass(frozen=True, kw_only=True)
class ErrorTradeoffInfo:
    """Trials as (peak memory in MB, relative error of the worst gradient), and which no other beats in both.

    Attributes:
        series: the points by precision, those of trials that rebuild nothing, and the front.
        on_front: trial ids of every point on a front.
        floor: the place on the log axis of trials that are exact: nothing is rebuilt, or without error.
        shows_limit: whether some error is near the limit of safe gradients, so that it is drawn.
        notes: how it is to be read.

    """

    series: tuple[Series, ...]
    on_front: frozenset[str]
    floor: float
    shows_limit: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """A point before it is drawn: one of its trials, its error or the floor, and all of its trials."""

    row: Row
    error: float
    ids: tuple[str, ...]


def info(store: Store) -> ErrorTradeoffInfo:
    """Collects the trials that ended ok; there must be one that reverses and was probed."""
    trials = cohort_of(store).ended_ok()
    ok = trials.where(trials.positive("memory_peak_bytes"))
    rebuilds_nothing = ok.having("strategy", is_exact)
    exact = ok.where(rebuilds_nothing)
    probed = ok.where(~rebuilds_nothing & (ok.numbers("gradient_rel_error") >= 0))
    if not probed:
        return ErrorTradeoffInfo(series=(), on_front=frozenset(), floor=1e-17, shows_limit=False, notes=())
    floor = zero_place([0.0, *(r["gradient_rel_error"] for r in probed)]) or 1e-17
    points = [_Mark(row=r, error=r["gradient_rel_error"] or floor, ids=(r["trial_id"],)) for r in probed]
    # seeds of a configuration that rebuilds nothing share their place
    for group in exact.alike("seed", same=("memory_source",)):
        largest = max(group, key=lambda r: r["memory_peak_bytes"])
        points.append(_Mark(row=largest, error=floor, ids=tuple(r["trial_id"] for r in group)))
    fronts, on_front = [], set()
    sources = group_by(points, lambda p: (p.row["data"] or "", p.row["memory_source"] or ""))
    for _, marks in sorted(sources.items()):
        mask = pareto_mask([(p.error, p.row["memory_peak_bytes"]) for p in marks], ("min", "min"))
        front = sorted((p for p, on in zip(marks, mask, strict=True) if on), key=lambda p: -p.error)
        on_front |= {i for p in front for i in p.ids}
        fronts.append(tuple(Point(x=p.row["memory_peak_bytes"] / MB, y=p.error, ids=p.ids) for p in front))
    series = []
    looks = group_by(points, lambda p: _look(p.row))
    for label in sorted(looks, key=lambda label: (is_exact(label), precision_rank(label))):
        row = looks[label][0].row
        look = precision_look(row)
        keys: tuple[tuple[str, str], ...] = (("precision", label), ("strategy", row["strategy"] or ""))
        if is_exact(label):
            look = {"color": strategy_color(label), "symbol": "square", "dash": "solid"}
            keys = (("strategy", label),)
        drawn = tuple(_point(p, floor) for p in looks[label])
        series.append(Series(name=label, lines=(drawn,), **look, role="trials", keys=keys, size=9))
    series.append(
        Series(
            name="Pareto front", lines=tuple(fronts), color=NEUTRAL, role="front", mode="lines", dash="dot"
        )
    )
    left_out = len(ok) - len(probed) - len(exact)
    notes = [
        f"Drawn: {count_text(len(probed), 'trial')} with rebuilt activations, and {len(exact):,} without. "
        "The gradients of those without are exact by definition. They lie below the dashed line, with errors "
        "of exactly zero."
    ]
    worst = max(p.error for p in points)
    if shows_limit := worst > NEAR * GRADIENT_LIMIT:
        notes.append(f"Above {GRADIENT_LIMIT:g} ({LIMIT_TEXT}, the dotted line) gradients are not safe.")
    else:
        notes.append(
            f"All errors are far below {GRADIENT_LIMIT:g} ({LIMIT_TEXT}), above which gradients are not safe."
        )
    if left_out:
        notes.append(f"{count_text(left_out, 'trial')} not drawn: reversed, but without a finite error.")
    return ErrorTradeoffInfo(
        series=tuple(series),
        on_front=frozenset(on_front),
        floor=floor,
        shows_limit=shows_limit,
        notes=tuple(notes),
    )


def figure(info: ErrorTradeoffInfo) -> go.Figure | None:
    """Draws it; None if no trial that reverses was probed."""
    if not info.series:
        return None
    layout = base_layout(
        title="Gradient error against peak memory",
        x="peak memory of a training step / MB",
        y="gradient error / relative",
        height=480,
    )
    layout.xaxis.type = "log"
    layout.xaxis.update(log_ticks(p.x for one in info.series for p in one.points if not isinstance(p.x, str)))
    layout.dragmode = "select"
    drawn = traces(info.series, x="%{x:.3g} MB peak", y="<b>%{y:.2e}</b> worst gradient error")
    for trace in drawn:
        if trace.meta["role"] == "trials":
            trace.marker.opacity = [
                1.0 if set(ids.split()) <= info.on_front else 0.5 for ids in trace.customdata
            ]
            trace.meta = {**trace.meta, "front": True}
            trace.showlegend = False
        else:
            trace.meta = {**trace.meta, "better": "down"}
            trace.line.shape = "hv"
    result = draw([*legend_entries(info.series, role="trials"), *drawn], layout)
    errors = [p.y for one in info.series for p in one.points]
    if info.shows_limit:
        errors.append(GRADIENT_LIMIT)
        result.add_shape(
            type="line", xref="paper", x0=0, x1=1, y0=GRADIENT_LIMIT, y1=GRADIENT_LIMIT,
            line={"dash": "dot", "width": 1.2, "color": NEUTRAL}, layer="below",
        )  # fmt: skip
    set_error_axis(result, "yaxis", errors, info.floor)
    return result


def _look(row: Row) -> str:
    return row["strategy"] if is_exact(row["strategy"]) else precision_label(row)


def _point(mark: _Mark, floor: float) -> Point:
    zero = "exactly 0" if mark.error == floor else ""
    return Point(
        x=mark.row["memory_peak_bytes"] / MB,
        y=mark.error,
        ids=mark.ids,
        text=describe([mark.row]),
        value_text="nothing rebuilt" if is_exact(mark.row["strategy"]) else zero,
    )
