"""The task's score against peak memory: a point per configuration, the Pareto front drawn, the rest muted."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.answers.recommend import comparable, configurations_of
from analysis.figures.series import Point, Series, describe, draw, legend_entries, traces
from analysis.pareto import pareto_mask
from analysis.score import BITS_PER_BYTE, Score, main_score
from analysis.stats import finite, group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL, strategy_color
from analysis.theme import base_layout, family_symbol, log_ticks
from analysis.wording import MB, count_text, joined


@dataclass(frozen=True, kw_only=True)
class TradeoffInfo:
    """Configurations as (peak memory in MB, validation score), and which of them no other beats.

    Attributes:
        metric: what the trials are judged by; those of other tasks are left out.
        series: the points by strategy and family, then the front.
        on_front: trial ids of every configuration on a front.
        left_out: trials that cannot be drawn, as they did not end ok or lack a finite value.

    """

    metric: Score
    series: tuple[Series, ...]
    on_front: frozenset[str]
    left_out: int
    notes: tuple[str, ...]


def info(store: Store) -> TradeoffInfo:
    """Collects the configurations of a store; seeds are averaged, and their interval kept."""
    rows = store.rows("trials")
    metric = main_score(rows)
    points = [c for c in configurations_of(store) if c.metric is metric]
    fronts, on_front = [], set()
    for _, group in comparable(points):
        mask = pareto_mask([(c.merit, c.peak_bytes) for c in group], ("max", "min"))
        front = sorted(
            (c for c, on in zip(group, mask, strict=True) if on), key=lambda c: (c.peak_bytes, c.merit)
        )
        on_front |= {i for c in front for i in c.ids}
        fronts.append(
            tuple(Point(x=c.peak_bytes / MB, y=metric.scale * c.score.mean, ids=c.ids) for c in front)
        )
    series = []
    looks = group_by(points, lambda c: (c.rows[0]["strategy"] or "", c.rows[0]["family"] or ""))
    for (strategy, family), group in sorted(looks.items()):
        marks = []
        for c in group:
            low, high = c.score.low, c.score.high
            marks.append(
                Point(
                    x=c.peak_bytes / MB,
                    y=metric.scale * c.score.mean,
                    low=None if low is None else metric.scale * low,
                    high=None if high is None else metric.scale * high,
                    ids=c.ids,
                    text=describe(c.rows),
                )
            )
        series.append(
            Series(
                name=joined(strategy, family),
                lines=(tuple(marks),),
                color=strategy_color(strategy),
                symbol=family_symbol(family),
                role="mean",
                column=metric.val,
                scale=metric.scale,
                size=9,
                keys=(("strategy", strategy), ("family", family)),
            )
        )
    if fronts:
        front_series = Series(
            name="Pareto front", lines=tuple(fronts), color=NEUTRAL, role="front", mode="lines", dash="dot"
        )
        series.append(front_series)
    used = sum(len(c.rows) for c in points)
    notes = [
        f"{count_text(len(points), 'configuration')} from {count_text(used, 'trial')}; "
        "bars are 95 % bootstrap intervals over seeds where there are three or more."
    ]
    bigrams = [r["bigram_bits_per_byte"] for r in rows if finite(r["bigram_bits_per_byte"])]
    if metric is BITS_PER_BYTE and bigrams:
        notes.append(f"A bigram count model of the same text takes {metric.text(statistics.mean(bigrams))}.")
    left_out = len(rows) - used
    if left_out:
        notes.append(
            f"{count_text(left_out, 'trial')} not drawn: not ended ok, or without {metric.name} or memory."
        )
    return TradeoffInfo(
        metric=metric,
        series=tuple(series),
        on_front=frozenset(on_front),
        left_out=left_out,
        notes=tuple(notes),
    )


def figure(info: TradeoffInfo) -> go.Figure | None:
    """Draws it; None if there is no point to draw."""
    if not any(one.points for one in info.series):
        return None
    layout = base_layout(
        title=f"{info.metric.title} against peak memory",
        x="peak memory of a training step / MB",
        y=info.metric.axis,
        height=480,
    )
    layout.xaxis.type = "log"
    layout.xaxis.update(log_ticks(p.x for one in info.series for p in one.points if not isinstance(p.x, str)))
    layout.dragmode = "select"
    drawn = traces(info.series, x="%{x:.3g} MB peak", y=info.metric.hover)
    for trace in drawn:
        if trace.meta["role"] == "mean":
            trace.marker.opacity = [
                1.0 if set(ids.split()) <= info.on_front else 0.5 for ids in trace.customdata
            ]
            trace.meta = {**trace.meta, "front": True}
            trace.showlegend = False
        else:
            trace.meta = {**trace.meta, "better": "up" if info.metric.better == "max" else "down"}
            trace.line.shape = "hv"  # what a budget buys, up to the next point
    return draw([*legend_entries(info.series, role="mean"), *drawn], layout)
