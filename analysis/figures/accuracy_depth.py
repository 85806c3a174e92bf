"""The score of the task against depth: what more layers bring, by strategy, family and width."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.cohort import cohort_of
from analysis.figures.means import mean_lines, named
from analysis.figures.series import Series, draw, traces
from analysis.score import Score, main_score
from analysis.store.store import Store
from analysis.strategies import strategy_color
from analysis.theme import base_layout, family_symbol
from analysis.wording import count_text, joined


@dataclass(frozen=True, kw_only=True)
class AccuracyDepthInfo:
    """Mean validation score by depth, one line per group that differs in depth and seed alone."""

    metric: Score
    series: tuple[Series, ...]
    depths: tuple[int, ...]
    notes: tuple[str, ...]


def info(store: Store) -> AccuracyDepthInfo:
    """Averages seeds, keeps their intervals, and joins equal settings over depth."""
    everything = cohort_of(store)
    metric = main_score(everything)
    trials = everything.ended_ok(metric.val, "depth")
    depths = tuple(sorted({r["depth"] for r in trials}))
    if len(depths) < 2:
        return AccuracyDepthInfo(metric=metric, series=(), depths=depths, notes=())
    series = []
    looks = sorted(trials.by("strategy", "family").items(), key=lambda item: named(item[0]))
    for number, (key, look) in enumerate(looks):
        strategy, family = named(key)
        # strategies stand side by side at each depth, so that their intervals can be told apart
        shift = 0.06 * (number - (len(looks) - 1) / 2)
        places = {depth: index + shift for index, depth in enumerate(depths)}
        series.append(
            Series(
                name=joined(strategy, family),
                lines=mean_lines(look, "depth", places, y=metric.val, scale=metric.scale),
                color=strategy_color(strategy),
                symbol=family_symbol(family),
                role="mean",
                column=metric.val,
                scale=metric.scale,
                mode="lines+markers",
                opacity=0.8,
                keys=(("strategy", strategy), ("family", family)),
            )
        )
    notes = (
        f"{count_text(len(trials), 'trial')}; bars are 95 % bootstrap intervals over three or more seeds; "
        "lines join trials that differ in depth and seed alone. Depths stand at equal distances.",
    )
    return AccuracyDepthInfo(
        metric=metric,
        series=tuple(series),
        depths=depths,
        notes=notes,
    )


def figure(info: AccuracyDepthInfo) -> go.Figure | None:
    """Draws it; None with fewer than two depths."""
    if not info.series:
        return None
    layout = base_layout(title=f"{info.metric.title} against depth", x="depth / layers", y=info.metric.axis)
    layout.xaxis.update(
        tickmode="array",
        tickvals=list(range(len(info.depths))),
        ticktext=[str(depth) for depth in info.depths],
        range=[-0.5, len(info.depths) - 0.5],
    )
    return draw(traces(info.series, x="at this depth", y=info.metric.hover), layout)
