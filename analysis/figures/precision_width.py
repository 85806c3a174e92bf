"""The score of the task by precision and width: lines join trials that differ in width and seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.cohort import cohort_of
from analysis.figures.means import mean_lines
from analysis.figures.series import Series, draw, traces
from analysis.score import Score, main_score
from analysis.store.store import Store
from analysis.theme import base_layout, family_symbol, precision_look
from analysis.wording import count_text, joined, precision_label


@dataclass(frozen=True, kw_only=True)
class PrecisionWidthInfo:
    """Mean validation score by width, one line per comparable group; `widths` are the ticks."""

    metric: Score
    series: tuple[Series, ...]
    widths: tuple[float, ...]
    notes: tuple[str, ...]


def info(store: Store) -> PrecisionWidthInfo:
    """Averages seeds, keeps their intervals, and joins equal settings over width."""
    everything = cohort_of(store)
    metric = main_score(everything)
    rows = everything.ended_ok(metric.val, "width")
    widths = sorted({r["width"] for r in rows})
    labels = sorted({precision_label(r) for r in rows})
    series = []
    looks = rows.grouped(lambda r: (precision_label(r), r["family"] or ""))
    for (label, family), look in sorted(looks.items()):
        # precisions stand side by side at each width, so that their intervals can be told apart
        shift = 0.07 * (labels.index(label) - (len(labels) - 1) / 2)
        places = {width: index + shift for index, width in enumerate(widths)}
        look_of = precision_look(look[0])
        series.append(
            Series(
                name=joined(label, family),
                lines=mean_lines(look, "width", places, y=metric.val, scale=metric.scale),
                color=look_of["color"],
                symbol=family_symbol(family),
                dash=look_of["dash"],
                role="mean",
                column=metric.val,
                scale=metric.scale,
                mode="lines+markers",
                opacity=0.85,
                keys=(("precision", label), ("family", family)),
            )
        )
    notes = []
    if rows:
        notes.append(
            f"{count_text(len(rows), 'trial')}; bars are 95 % bootstrap intervals over three or more seeds; "
            "lines join trials that differ in width and seed alone."
        )
    return PrecisionWidthInfo(
        metric=metric,
        series=tuple(series),
        widths=tuple(widths),
        notes=tuple(notes),
    )


def figure(info: PrecisionWidthInfo) -> go.Figure | None:
    """Draws it; None if there is no point to draw."""
    if not info.series:
        return None
    layout = base_layout(
        title=f"{info.metric.title} by precision and width",
        x="width / multiple of the preset's channels",
        y=info.metric.axis,
    )
    layout.xaxis.update(
        tickmode="array",
        tickvals=list(range(len(info.widths))),
        ticktext=[f"{width:g}" for width in info.widths],
        range=[-0.5, len(info.widths) - 0.5],
    )
    return draw(traces(info.series, x="at this width", y=info.metric.hover), layout)
