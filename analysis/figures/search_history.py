"""The course of a search: what each proposed trial reached, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.score import Score, main_score
from analysis.stats import Row, finite, group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL
from analysis.theme import INK, OUTCOME_COLORS, base_layout, count_axis
from analysis.wording import count_text

_SYMBOLS = {"ok": "circle", "pruned": "triangle-down-open"}


@dataclass(frozen=True, kw_only=True)
class SearchHistoryInfo:
    """Points of (number in the search, validation score) by outcome, and the best so far.

    Attributes:
        metric: what the trials are judged by.
        proposed: trials that a sampler proposed, in the order they began; those without a score count.
        best: trial id of the best, None if none ended ok.

    """

    metric: Score
    series: tuple[Series, ...]
    proposed: int
    best: str | None
    notes: tuple[str, ...]


def searched(rows: list[Row]) -> list[Row]:
    """The trials that a sampler proposed, by study, in the order they began."""
    found = [r for r in rows if r["origin"] not in (None, "grid")]
    return sorted(
        found, key=lambda r: (r["study"] or "", r["started_at"] is None, r["started_at"] or 0, r["trial_id"])
    )


def info(store: Store) -> SearchHistoryInfo:
    """Collects the trials that a search proposed. Each study's search counts its own trials from one."""
    rows = searched(store.rows("trials"))
    numbers: dict[str, int] = {}
    for group in group_by(rows, lambda r: r["study"]).values():
        numbers.update({r["trial_id"]: i for i, r in enumerate(group, start=1)})
    metric = main_score(rows)
    drawn = [r for r in rows if finite(r[metric.val])]
    series = [
        Series(
            name=outcome,
            lines=(tuple(_point(r, numbers, metric) for r in group),),
            color=OUTCOME_COLORS.get(outcome, NEUTRAL),
            symbol=_SYMBOLS.get(outcome, "x-thin-open"),
            role="trials",
            keys=(("outcome", outcome),),
            opacity=0.85,
        )
        for outcome, group in sorted(group_by(drawn, lambda r: r["outcome"] or "unknown").items())
    ]
    ok = [r for r in drawn if r["outcome"] == "ok"]
    steps = []
    for group in group_by(ok, lambda r: r["study"]).values():
        best, line = group[0], []
        for row in group:
            best = max(best, row, key=lambda r: metric.merit(r[metric.val]))
            line.append(
                Point(
                    x=numbers[row["trial_id"]],
                    y=metric.scale * best[metric.val],
                    ids=(best["trial_id"],),
                    text="best so far: " + describe([best]),
                )
            )
        steps.append(tuple(line))
    if steps:
        series.append(
            Series(
                name="best so far", lines=tuple(steps), color=INK, role="trials", mode="lines", opacity=0.7
            )
        )
    winner = max(ok, key=lambda r: metric.merit(r[metric.val])) if ok else None
    return SearchHistoryInfo(
        metric=metric,
        series=tuple(series),
        proposed=len(rows),
        best=winner["trial_id"] if winner else None,
        notes=_notes(rows, drawn, winner, metric, numbers),
    )


def figure(info: SearchHistoryInfo) -> go.Figure | None:
    """Draws it; None if no sampler proposed a trial that reached a score."""
    if not info.series:
        return None
    layout = base_layout(title="Course of the search", x="trial / number in the search", y=info.metric.axis)
    highest = max(p.x for one in info.series for p in one.points if not isinstance(p.x, str))
    layout.xaxis.update(count_axis(highest))
    result = draw(traces(info.series, x="trial %{x} of the search", y=info.metric.hover), layout)
    for trace in result.data:
        if trace.mode == "lines":
            trace.line.shape = "hv"
            trace.line.color = NEUTRAL
    return result


def _point(row: Row, numbers: dict[str, int], metric: Score) -> Point:
    return Point(
        x=numbers[row["trial_id"]],
        y=metric.scale * row[metric.val],
        ids=(row["trial_id"],),
        text=describe([row]),
    )


def _notes(
    rows: list[Row], drawn: list[Row], best: Row | None, metric: Score, numbers: dict[str, int]
) -> tuple[str, ...]:
    if not drawn:
        return ()
    samplers = sorted({str(r["origin"]) for r in rows})
    notes = [f"{count_text(len(rows), 'trial')} proposed by {', '.join(samplers)}."]
    if best is not None:
        notes.append(
            f"The best, trial {numbers[best['trial_id']]}, reached {metric.text(best[metric.val])} "
            "in validation."
        )
    if len(rows) > len(drawn):
        notes.append(f"{count_text(len(rows) - len(drawn), 'trial')} without a score not drawn.")
    return tuple(notes)
