"""Total peak against step time of every memory strategy, for one network of each model family.

Of each family the network is drawn that most strategies were tried on, and of those the deepest. A strategy
that another beats in both is dominated: it is muted, and named below the figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.named_queries import STEP, TIMED, VARIANT
from analysis.queries import run_query
from analysis.stats import Row, group_by
from analysis.store.store import Store
from analysis.strategies import strategy_color
from analysis.theme import axis_style, base_layout, log_ticks, safe
from analysis.wording import MB, bytes_text, joined, precision_label, seconds_text, shape_text

_PLACE = [column.strip() for column in STEP.split(",")]

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
        beaten_by: the label of one on the front that takes no more of either; empty on the front.
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
    """Finds the network of each family that most strategies were tried on, on one machine.

    What is compared, and what dominates what, is the named query ``strategies``.

    Returns:
        The strategies of each family, those of the most strategies first.
    """
    networks: dict[tuple[object, ...], list[Tried]] = {}
    rows = _rows_of_each(store)
    for found in run_query(store, "strategies").to_pylist():
        if not all(0 < found[column] < math.inf for column in ("step_time_s", "memory_peak_bytes")):
            continue  # No place on axes of logarithms.
        place = tuple(found[column] for column in _PLACE)
        tried = Tried(
            label=found["strategy"],
            rows=tuple(rows[(*place, found["strategy"])]),
            step_s=found["step_time_s"],
            peak_bytes=found["memory_peak_bytes"],
            beaten_by=found["dominated_by"] or "",
        )
        networks.setdefault(place, []).append(tried)
    by_family = group_by(
        (sorted(tried, key=lambda one: (one.step_s, one.peak_bytes)) for tried in networks.values()),
        lambda tried: tried[0].rows[0]["family"] or "other",
    )
    shown = []
    for family, several in by_family.items():
        best = max(several, key=lambda t: (len(t), t[0].rows[0]["depth"] or 0, sum(len(o.rows) for o in t)))
        if len(best) < 2:
            continue
        first = best[0].rows[0]
        words = joined(first["model"] or "", shape_text(first), precision_label(first))
        beaten = [f"{one.label} (by {one.beaten_by})" for one in best if one.beaten_by]
        rest = f" Dominated: {', '.join(beaten)}." if beaten else " None is dominated."
        shown.append((family, words, tuple(best), f"{family}, {words}: {_ends(best)}{rest}"))
    shown.sort(key=lambda one: (-len(one[2]), one[0]))
    shown = shown[:MOST_FAMILIES]
    return StrategiesInfo(families=tuple(one[:3] for one in shown), notes=tuple(one[3] for one in shown))


def _rows_of_each(store: Store) -> dict[tuple[object, ...], list[Row]]:
    """The trials behind each row of the query, by the network and the strategy."""
    by_id = {row["trial_id"]: row for row in store.rows("trials")}
    found = store.sql(f"SELECT trial_id, {STEP}, {VARIANT} AS strategy FROM trials WHERE {TIMED}").to_pylist()
    return {
        key: [by_id[one["trial_id"]] for one in group]
        for key, group in group_by(
            found, lambda one: (*(one[column] for column in _PLACE), one["strategy"])
        ).items()
    }


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
