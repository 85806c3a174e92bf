"""Loss against memory at equal compute: what the law gives each trained network for one budget of operations.

Operations count what a memory strategy computes again. So a strategy that saves bytes affords a larger
network, and pays for it in data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from analysis.figures.law_points import law_of, short
from analysis.figures.series import Point, Series, draw, traces
from analysis.laws.study_law import StudyLaw
from analysis.stats import finite, group_by
from analysis.store.store import Store
from analysis.strategies import strategy_color
from analysis.theme import base_layout, family_symbol, log_ticks
from analysis.wording import MB, count_text, joined


@dataclass(frozen=True, kw_only=True)
class LawMemoryInfo:
    """(peak memory in MB, loss that the law gives) of each trained network, at one budget of operations.

    Attributes:
        series: The networks of each strategy, then the lowest loss within each amount of memory.
        operations: The budget: the most that any of the trainings took.
        loss: The column that is drawn.
        notes: How it is to be read.
    """

    series: tuple[Series, ...]
    operations: float
    loss: str
    notes: tuple[str, ...]


def info(store: Store) -> LawMemoryInfo:
    """Takes the trials whose bytes and operations are known, and asks the law for their losses."""
    law = law_of(store)
    if law.found is None or not (rows := _measured(store, law.found)):
        return LawMemoryInfo(series=(), operations=0.0, loss="", notes=())
    found: StudyLaw = law.found
    size = found.points.names["parameters"]
    budget = max(row["flops_hardware"] * row["steps_done"] for row in rows)
    series = []
    for (strategy, family), group in sorted(
        group_by(rows, lambda r: (r["strategy"] or "", r["family"] or "")).items()
    ):
        alike = group_by(group, lambda r: (r["memory_peak_bytes"], r[size]))
        points = [
            _point(found, same, budget, law.texts.get(same[0]["trial_id"], ""))
            for _, same in sorted(alike.items())
        ]
        front, best = [], float("inf")
        for point in points:
            if point.y < best:
                front.append(point)
                best = point.y
        name, color = joined(strategy, family), strategy_color(strategy)
        series += [
            Series(
                name=name,
                lines=(tuple(points),),
                color=color,
                symbol=family_symbol(family),
                role="fit",
                opacity=0.8,
                keys=(("strategy", strategy), ("family", family)),
            ),
            Series(name=name, lines=(tuple(front),), color=color, role="fit", mode="lines", opacity=0.6),
        ]
    notes = (
        f"Every network gets {budget:.2g} operations, what it computes again counted: the most that a "
        f"training here took ({count_text(len(rows), 'trial')}). Losses are the law's, not measured.",
        "Lines join the lowest losses within each amount of memory. `revstudy frontier` compares networks "
        "that were not trained too.",
    )
    return LawMemoryInfo(
        series=tuple(series), operations=float(budget), loss=found.points.names["loss"], notes=notes
    )


def figure(info: LawMemoryInfo) -> go.Figure | None:
    """Draws it; None without a law, or without operations and bytes."""
    if not info.series:
        return None
    layout = base_layout(
        title="Loss against memory at equal compute", x="peak memory / MB", y=f"{info.loss} by the law / nats"
    )
    layout.xaxis.type = "log"
    layout.xaxis.update(log_ticks(float(p.x) for one in info.series for p in one.points))
    return draw(traces(info.series, x="%{x:.4g} MB", y="<b>%{y:.4f}</b>"), layout)


def _measured(store: Store, found: StudyLaw) -> list[dict[str, Any]]:
    wanted = ("memory_peak_bytes", "flops_hardware", "steps_done", found.points.names["data"])
    return [
        row
        for row in store.rows_of("trials", found.points.trial_ids)
        if all(finite(row.get(name)) and row[name] > 0 for name in wanted)
    ]


def _size(row: dict[str, Any], found: StudyLaw) -> float:
    return float(row[found.points.names["parameters"]])


def _point(found: StudyLaw, same: list[dict[str, Any]], budget: float, text: str) -> Point:
    row = same[0]
    each = row["flops_hardware"] * row["steps_done"] / row[found.points.names["data"]]
    n, d = _size(row, found), budget / each
    low, high = found.law.predict_interval(n, d)
    return Point(
        x=row["memory_peak_bytes"] / MB,
        y=float(found.law.predict(n, d)),
        ids=tuple(one["trial_id"] for one in same),
        text=f"{short(n)} parameters on {short(d)} {found.points.unit}<br>{text}",
        low=low,
        high=high,
    )
