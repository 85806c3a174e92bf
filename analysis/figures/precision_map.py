"""Heat maps of precision: what each arithmetic of F and G and each stream costs, at each depth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.score import main_score
from analysis.stats import Row, finite, group_by
from analysis.store.store import Store
from analysis.theme import axis_style, base_layout, safe
from analysis.wording import count_text, precision_label, precision_rank


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """One heat map.

    Attributes:
        column: the column it shows.
        title: what it is, with its unit.
        log: colors follow the logarithm; exactly zero takes the color of the smallest positive value.
        scale: factor on the values.
        lower: lower values are better, so that the colors run the other way.
        medians: rows of cells, None where no trial has a value.
        ids: trial ids behind each cell.

    """

    column: str
    title: str
    log: bool
    scale: float
    lower: bool
    medians: tuple[tuple[float | None, ...], ...]
    ids: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True, kw_only=True)
class PrecisionMapInfo:
    """Medians by precision (a row) and depth (a column of cells)."""

    precisions: tuple[str, ...]
    depths: tuple[int, ...]
    panels: tuple[HeatMap, ...]
    notes: tuple[str, ...]


def info(store: Store) -> PrecisionMapInfo:
    """Collects the trials that ended ok, by precision and depth."""
    rows = [r for r in store.rows("trials") if r["outcome"] == "ok" and finite(r["depth"])]
    metric = main_score(rows)
    wanted = (
        ("gradient_rel_error", "gradient error of reversing / relative", True, 1.0),
        (metric.val, metric.axis, False, metric.scale),
    )
    rows = [r for r in rows if any(finite(r[column]) for column, *_ in wanted)]
    precisions = sorted({precision_label(r) for r in rows}, key=precision_rank)
    depths = sorted({r["depth"] for r in rows})
    if len(precisions) < 2 or not depths:
        return PrecisionMapInfo(precisions=(), depths=(), panels=(), notes=())
    panels = []
    for column, title, log, scale in wanted:
        cells = group_by([r for r in rows if finite(r[column])], lambda r: (precision_label(r), r["depth"]))
        grid = [[cells.get((p, d), []) for d in depths] for p in precisions]
        if cells:
            panels.append(
                HeatMap(
                    column=column,
                    title=title,
                    log=log,
                    scale=scale,
                    lower=column == metric.val and metric.better == "min",
                    medians=tuple(tuple(_median(cell, column, scale) for cell in line) for line in grid),
                    ids=tuple(tuple(tuple(r["trial_id"] for r in cell) for cell in line) for line in grid),
                )
            )
    notes = (
        f"{count_text(len(rows), 'trial')}; a cell is the median over its trials, which may differ in width "
        "and other settings: press it to see them, or filter first.",
    )
    return PrecisionMapInfo(
        precisions=tuple(precisions), depths=tuple(depths), panels=tuple(panels), notes=notes
    )


def figure(info: PrecisionMapInfo) -> go.Figure | None:
    """Draws one heat map above the other; None with fewer than two precisions."""
    if not info.panels:
        return None
    count, gap = len(info.panels), 0.16
    share = (1 - gap * (count - 1)) / count
    layout = base_layout(
        title="Precision by depth", x="", y="", height=150 + count * (60 + 38 * len(info.precisions))
    )
    traces = []
    for number, panel in enumerate(info.panels):
        top = 1 - number * (share + gap)
        suffix = "" if number == 0 else str(number + 1)
        style = {**axis_style(), "showgrid": False, "type": "category"}
        # Ranges are given, as none can be found where a filter leaves no value.
        layout[f"yaxis{suffix}"] = {
            **style,
            "domain": [max(0.0, top - share), top],
            "range": [len(info.precisions) - 0.5, -0.5],
        }
        layout[f"xaxis{suffix}"] = {
            **style,
            "anchor": f"y{suffix}",
            "range": [-0.5, len(info.depths) - 0.5],
            "title": {
                "text": "depth / layers" if number == count - 1 else "",
                "standoff": 8,
                "font": {"size": 13},
            },
        }
        traces.append(_heatmap(info, panel, suffix, middle=top - share / 2, length=share))
        layout.annotations += (
            {
                "text": panel.title,
                "x": 0,
                "y": top,
                "xref": "paper",
                "yref": "paper",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 13},
            },
        )
    layout.showlegend = False
    return go.Figure(traces, layout)


def _heatmap(
    info: PrecisionMapInfo, panel: HeatMap, suffix: str, *, middle: float, length: float
) -> go.Heatmap:
    values = [v for line in panel.medians for v in line if v is not None]
    positive = [v for v in values if v > 0] or [1e-16]
    floor = math.log10(min(positive))

    def color(value: float | None) -> float | None:
        if value is None or not panel.log:
            return value
        return math.log10(value) if value > 0 else floor

    bar = {
        "thickness": 10,
        "len": length,
        "y": middle,
        "outlinewidth": 0,
        "x": 1.01,
        "tickfont": {"size": 11},
    }
    if panel.log:
        ends = range(math.ceil(floor - 1e-9), math.floor(math.log10(max(positive)) + 1e-9) + 1)
        step = max(1, len(ends) // 4)
        bar.update(tickvals=list(ends[::step]), ticktext=[f"10<sup>{p}</sup>" for p in ends[::step]])
    return go.Heatmap(
        x=[str(depth) for depth in info.depths],
        y=[safe(p) for p in info.precisions],
        z=[[color(v) for v in line] for line in panel.medians],
        text=[[_cell_text(v, panel) for v in line] for line in panel.medians],
        texttemplate="%{text}" if len(info.depths) <= 14 else None,
        textfont={"size": 11},
        customdata=[[" ".join(ids) for ids in line] for line in panel.ids],
        hovertemplate="<b>%{text}</b> " + panel.title.partition(" /")[0] + ", median of %{hovertext}"
        "<br>depth %{x} · %{y}<extra></extra>",
        hovertext=[[count_text(len(ids), "trial") for ids in line] for line in panel.ids],
        colorscale="Cividis",
        reversescale=panel.log or panel.lower,
        hoverongaps=False,
        xgap=2,
        ygap=2,
        colorbar=bar,
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        meta={"role": "cell", "column": panel.column, "scale": panel.scale, "log": panel.log, "keys": []},
    )


def _median(rows: Sequence[Row], column: str, scale: float) -> float | None:
    return scale * statistics.median(r[column] for r in rows) if rows else None


def _cell_text(value: float | None, panel: HeatMap) -> str:
    if value is None:
        return ""
    if not panel.log:
        return f"{value:.1f}" if panel.scale == 100 else f"{value:.3f}"
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
