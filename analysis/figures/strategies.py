"""Total peak against step time of every memory strategy, for one network of each model family.

Of each family the network is drawn that most strategies were tried on, and of those the deepest. A strategy
that another beats in both is dominated: it is muted, and named below the figure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.cohort import Cohort, cohort_of
from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.pareto import pareto_mask
from analysis.stats import Row, finite, group_by
from analysis.store.store import Store
from analysis.strategies import strategy_color
from analysis.theme import axis_style, base_layout, log_ticks, safe
from analysis.wording import MB, bytes_text, joined, precision_label, seconds_text, shape_text

MOST_FAMILIES = 4
"""Families that are drawn, those that most strategies were tried on first."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One strategy, or combination, on one network.

    Attributes:
        label: the strategy, and what its settings add.
        rows: its trials.
        step_s: median time of a step over the trials.
        peak_bytes: the largest peak of a step over the trials.
        beaten_by: the label of the fastest that takes less of both, or as much of one; empty on the front.
    """

    label: str
    rows: tuple[Row, ...]
    step_s: float
    peak_bytes: float
    beaten_by: str = ""


@dataclass(frozen=True, kw_only=True)
class StrategiesInfo:
    """Strategies by family: (family, the network in words, what was tried on it)."""

    families: tuple[tuple[str, str, tuple[Tried, ...]], ...]
    notes: tuple[str, ...]


def info(store: Store) -> StrategiesInfo:
    """Finds the network of each family that most strategies were tried on, on one machine."""
    trials = cohort_of(store).ended_ok()
    trials = trials.where(trials.positive("memory_peak_bytes") & trials.positive("step_time_s"))
    groups = trials.alike("strategy", "seed", same=("memory_source", "device"))
    found, notes = [], []
    for family, alike in sorted(group_by(groups, lambda g: g[0]["family"] or "other").items()):
        best = max(alike, key=lambda g: (len({_label(row) for row in g}), g[0]["depth"] or 0, len(g)))
        tried = _judged(best)
        if len(tried) < 2:
            continue
        first = best[0]
        words = joined(first["model"] or "", shape_text(first), precision_label(first))
        found.append((family, words, tried))
        beaten = [f"{one.label} (by {one.beaten_by})" for one in tried if one.beaten_by]
        rest = f" Dominated: {', '.join(beaten)}." if beaten else " None is dominated."
        notes.append(f"{family}, {words}: {_ends(tried)}{rest}")
    found.sort(key=lambda one: -len(one[2]))
    return StrategiesInfo(families=tuple(found[:MOST_FAMILIES]), notes=tuple(notes[:MOST_FAMILIES]))


def figure(info: StrategiesInfo) -> go.Figure | None:
    """Draws a panel per family; None if no network was trained in two ways."""
    if not info.families:
        return None
    count = len(info.families)
    layout = base_layout(
        title="Total peak against step time", x="", y="peak memory of a training step / MB", height=480
    )
    width = (1 - 0.09 * (count - 1)) / count
    series, marks = [], []
    for panel, (family, words, tried) in enumerate(info.families, start=1):
        axis = "" if panel == 1 else str(panel)
        left = (panel - 1) * (width + 0.09)
        layout[f"xaxis{axis}"] = {
            **axis_style("step time / ms"),
            "domain": [left, left + width],
            "anchor": f"y{axis}",
            **_log([1000 * one.step_s for one in tried]),
        }
        layout[f"yaxis{axis}"] = {
            **axis_style("peak memory of a training step / MB" if panel == 1 else ""),
            "anchor": f"x{axis}",
            **_log([one.peak_bytes / MB for one in tried]),
        }
        marks.append(
            {
                "text": safe(words if count == 1 else f"{family}: {words}"),
                "x": left,
                "y": 1.0,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
        for one in tried:
            series.append(_series(one, panel))
            marks.append(
                {
                    "text": safe(one.label),
                    "x": math.log10(1000 * one.step_s),
                    "y": math.log10(one.peak_bytes / MB),
                    "xref": f"x{axis}",
                    "yref": f"y{axis}",
                    "showarrow": False,
                    "yshift": 17,
                    "opacity": 0.55 if one.beaten_by else 1.0,
                }
            )
    layout.update(annotations=marks, showlegend=False)
    return draw(traces(series, x="%{x:.3g} ms a step", y="<b>%{y:.3g} MB</b> peak"), layout)


def _series(one: Tried, panel: int) -> Series:
    strategy = one.rows[0]["strategy"] or ""
    ids = tuple(row["trial_id"] for row in one.rows)
    beaten = f"<br>dominated by {safe(one.beaten_by)}" if one.beaten_by else ""
    point = Point(x=1000 * one.step_s, y=one.peak_bytes / MB, ids=ids, text=describe(one.rows) + beaten)
    return Series(
        name=one.label,
        lines=((point,),),
        color=strategy_color(strategy),
        symbol="circle-open" if one.beaten_by else "circle",
        role="trials",
        size=11,
        opacity=0.55 if one.beaten_by else 1.0,
        panel=panel,
        keys=(("strategy", strategy),),
    )


def _judged(group: Cohort) -> tuple[Tried, ...]:
    """What was tried on a network, the fastest first, each with what beats it."""
    by_label = group_by(group, _label)
    tried = [
        Tried(
            label=label,
            rows=tuple(rows),
            step_s=statistics.median(row["step_time_s"] for row in rows),
            peak_bytes=max(row["memory_peak_bytes"] for row in rows),
        )
        for label, rows in by_label.items()
    ]
    tried.sort(key=lambda one: (one.step_s, one.peak_bytes))
    front = pareto_mask([(one.step_s, one.peak_bytes) for one in tried], ("min", "min"))
    return tuple(
        one
        if on
        else Tried(
            label=one.label,
            rows=one.rows,
            step_s=one.step_s,
            peak_bytes=one.peak_bytes,
            beaten_by=next(
                o.label for o in tried if o.step_s <= one.step_s and o.peak_bytes <= one.peak_bytes
            ),
        )
        for one, on in zip(tried, front, strict=True)
    )


def _label(row: Row) -> str:
    """The strategy, with the settings that make it another one."""
    parts = [row["strategy"] or "unknown"]
    if finite(row["anchor_every"]):
        parts.append(f"anchor every {row['anchor_every']}")
    if finite(row["activation_budget"]):
        parts.append(f"keeping {100 * row['activation_budget']:.3g} %")
    if finite(row["memory_budget_bytes"]):
        parts.append(f"within {bytes_text(row['memory_budget_bytes'])}")
    return ", ".join(parts)


def _ends(tried: Sequence[Tried]) -> str:
    """The fastest and the smallest, in words."""
    fastest, smallest = tried[0], min(tried, key=lambda one: one.peak_bytes)
    if fastest is smallest:
        return f"{fastest.label} is the fastest and the smallest."
    return (
        f"{fastest.label} is the fastest ({seconds_text(fastest.step_s)} a step, "
        f"{bytes_text(fastest.peak_bytes)}), "
        f"{smallest.label} the smallest ({seconds_text(smallest.step_s)}, {bytes_text(smallest.peak_bytes)})."
    )


def _log(values: Sequence[float]) -> dict[str, object]:
    """A logarithmic axis with room around the values for their names."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = 0.12 * (high - low) + 0.05
    return {"type": "log", "range": [low - room, high + room], **log_ticks(values)}
