"""Learning curves: training loss and validation score by epoch, one line per trial."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.series import MAX_LINES, Series, draw, line_series, traces
from analysis.score import Score, main_score
from analysis.stats import group_by, sample
from analysis.store.store import Store
from analysis.theme import axis_style, base_layout, count_axis, log_ticks
from analysis.wording import count_text


@dataclass(frozen=True, kw_only=True)
class CurvesInfo:
    """Lines of (epoch, loss) and (epoch, validation score); every outcome is drawn, as far as it came."""

    metric: Score
    series: tuple[Series, ...]
    shown: int
    trials: int
    notes: tuple[str, ...]


def info(store: Store) -> CurvesInfo:
    """Collects the curves of a bounded number of trials, spread evenly over the store."""
    with_epochs = set(store.table("epochs")["trial_id"].unique().to_pylist())
    trials = [r for r in store.rows("trials") if r["trial_id"] in with_epochs]
    chosen = sample(trials, MAX_LINES)
    by_trial = group_by(store.rows_of("epochs", (r["trial_id"] for r in chosen)), lambda r: r["trial_id"])
    series: list[Series] = []
    metric = main_score(store.rows("trials"))
    panels = (("loss_train", 1.0), (metric.val, metric.scale))
    for panel, (column, scale) in enumerate(panels, start=1):
        series += line_series(
            chosen, by_trial, x="epoch", y=column, scale=scale, panel=panel, positive=panel == 1
        )
    notes = []
    if trials:
        drawn = (
            f"all {count_text(len(trials), 'trial')} with epochs"
            if len(chosen) == len(trials)
            else f"a sample of {len(chosen)} of {len(trials):,} trials, spread evenly"
        )
        notes.append(f"Drawn: {drawn}. Values that are not finite leave a gap.")
    return CurvesInfo(
        metric=metric, series=tuple(series), shown=len(chosen), trials=len(trials), notes=tuple(notes)
    )


def figure(info: CurvesInfo) -> go.Figure | None:
    """Draws two panels over one epoch axis; None if there is no curve."""
    if not info.series:
        return None
    layout = base_layout(title="Learning curves", x="", y="training loss / nats", height=600)
    losses = [p.y for one in info.series if one.panel == 1 for p in one.points]
    epochs = count_axis(max(p.x for one in info.series for p in one.points if not isinstance(p.x, str)))
    layout.yaxis.update(domain=[0.54, 1.0], type="log", **log_ticks(losses))
    layout.update(
        yaxis2={**axis_style(info.metric.axis), "domain": [0.0, 0.46]},
        xaxis2={**axis_style("epoch"), "anchor": "y2", "matches": "x", **epochs},
    )
    layout.xaxis.update(anchor="y", showticklabels=False, **epochs)
    return draw(traces(info.series, x="epoch %{x}", y="<b>%{y:.4g}</b>"), layout)
