"""Which settings mattered to what a search looked for, as bars by two methods."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.answers.importance import Direction, Importance, importance
from analysis.figures.search_history import searched
from analysis.score import main_score
from analysis.stats import finite
from analysis.store.store import Store
from analysis.theme import axis_style, base_layout, safe
from analysis.wording import count_text

MOST_SETTINGS = 8
_COSTS: tuple[tuple[str, Direction, str], ...] = (
    ("memory_peak_bytes", "minimize", "peak memory"),
    ("reconstruction_rel_error", "minimize", "reconstruction error"),
)
_METHODS = (("PED-ANOVA: the best tenth", "#0072B2"), ("fANOVA: all variance", "#E69F00"))


@dataclass(frozen=True, kw_only=True)
class ImportanceInfo:
    """Importances by result, the results that a search usually looks for."""

    results: tuple[tuple[str, Importance], ...]
    notes: tuple[str, ...]


def info(store: Store) -> ImportanceInfo:
    """Computes them over the trials that a search proposed, where there are enough."""
    rows = [r for r in searched(store.rows("trials")) if r["outcome"] == "ok"]
    results = []
    metric = main_score(store.rows("trials"))
    better: Direction = "maximize" if metric.better == "max" else "minimize"
    for column, direction, name in ((metric.val, better, f"validation {metric.name}"), *_COSTS):
        found = importance([r for r in rows if finite(r[column])], column, direction=direction)
        if found is not None:
            results.append((name, found))
    notes: tuple[str, ...] = ()
    if results:
        counts = sorted({found.n for _, found in results})
        n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        notes = (
            f"Over {n} trials of the search. Each method's bars sum to 100 % over all settings that varied. "
            "The two answer different questions, so they may disagree. Filters do not change them.",
        )
    return ImportanceInfo(results=tuple(results), notes=notes)


def figure(info: ImportanceInfo) -> go.Figure | None:
    """Draws a panel per result; None if there is nothing to explain."""
    if not info.results:
        return None
    shown = [found.settings[:MOST_SETTINGS] for _, found in info.results]
    heights = [60 + 34 * len(settings) for settings in shown]
    total = sum(heights)
    layout = base_layout(title="Importance of settings", x="", y="", height=total + 90)
    layout.update(barmode="group", bargap=0.3)
    traces, top = [], 1.0
    for number, ((name, found), settings, height) in enumerate(
        zip(info.results, shown, heights, strict=True)
    ):
        suffix = "" if number == 0 else str(number + 1)
        bottom = max(0.0, top - height / total)
        layout[f"yaxis{suffix}"] = {
            **axis_style(),
            "domain": [bottom + 0.25 * 60 / total, max(bottom, top - 32 / total)],
            "autorange": "reversed",
            "showgrid": False,
        }
        layout[f"xaxis{suffix}"] = {
            **axis_style(),
            "anchor": f"y{suffix}",
            "range": [0, 100],
            "ticksuffix": " %",
            "fixedrange": True,
        }
        layout.annotations += (
            {
                "text": f"what mattered to {name} (n = {count_text(found.n, 'trial')})",
                "x": 0,
                "y": top - 30 / total,
                "xref": "paper",
                "yref": "paper",
                "font": {"size": 13},
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
            },
        )
        for (method, color), values in zip(_METHODS, (found.ped_anova, found.fanova), strict=True):
            traces.append(
                go.Bar(
                    name=method,
                    legendgroup=method,
                    showlegend=number == 0,
                    orientation="h",
                    y=[safe(path) for path in settings],
                    x=[round(100 * values[path], 2) for path in settings],
                    customdata=[""] * len(settings),
                    hovertemplate=f"<b>%{{x:.1f}} %</b> {safe(method)}<br>%{{y}}<extra></extra>",
                    marker={"color": color},
                    xaxis=f"x{suffix}",
                    yaxis=f"y{suffix}",
                    meta={"role": "fixed", "column": "", "scale": 1.0, "keys": []},
                )
            )
        top = bottom
    return go.Figure(traces, layout)
