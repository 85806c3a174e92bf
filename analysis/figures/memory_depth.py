"""Activation memory against depth by strategy: storing grows with depth, reversing should not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.fits import Fit, fit_power
from analysis.labels import precision_label, width_text
from analysis.stats import Row, finite, group_by, settings_key
from analysis.store import Store
from analysis.theme import base_layout, family_symbol, log_ticks, strategy_color
from analysis.units import MB, count_text

FURTHER = 2
"""Extrapolated lines end at so many times the depth of the deepest trial."""

MEASURED_ALIKE = ("memory_source", "device")


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the activation memory of one comparable group grows: bytes are proportional to depth^slope."""

    label: str
    strategy: str
    fit: Fit
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryDepthInfo:
    """Lines of (depth, activation memory in MB) through trials that differ in depth and seed alone."""

    series: tuple[Series, ...]
    growth: tuple[Growth, ...]
    notes: tuple[str, ...]


def info(store: Store) -> MemoryDepthInfo:
    """Collects the lines, and fits a power law to each that spans three depths or more."""
    rows = [
        r
        for r in store.rows("trials")
        if r["outcome"] == "ok"
        and finite(r["memory_activation_bytes"])
        and finite(r["depth"])
        and r["memory_activation_bytes"] > 0
    ]
    series, growth = [], []
    for (strategy, family), look in sorted(
        group_by(rows, lambda r: (r["strategy"] or "", r["family"] or "")).items()
    ):
        lines = []
        for group in group_by(look, lambda r: settings_key(r, "depth", "seed", same=MEASURED_ALIKE)).values():
            line = []
            for depth, same in sorted(group_by(group, lambda r: r["depth"]).items()):
                mean = sum(r["memory_activation_bytes"] for r in same) / len(same)
                line.append(
                    Point(x=depth, y=mean / MB, ids=tuple(r["trial_id"] for r in same), text=describe(same))
                )
            lines.append(tuple(line))
            fit = fit_power([r["depth"] for r in group], [r["memory_activation_bytes"] for r in group])
            if fit and fit.distinct >= 3:
                ids = tuple(r["trial_id"] for r in group)
                growth.append(Growth(label=_label(group[0]), strategy=strategy, fit=fit, ids=ids))
        series.append(
            Series(
                name=f"{strategy} · {family}",
                lines=tuple(lines),
                color=strategy_color(strategy),
                symbol=family_symbol(family),
                role="mean",
                column="memory_activation_bytes",
                scale=1 / MB,
                mode="lines+markers",
                keys=(("strategy", strategy), ("family", family)),
            )
        )
    series += _extrapolations(growth, rows)
    return MemoryDepthInfo(series=tuple(series), growth=tuple(growth), notes=tuple(_notes(growth, rows)))


def figure(info: MemoryDepthInfo) -> go.Figure | None:
    """Draws it; None if there is no point to draw."""
    if not info.series:
        return None
    layout = base_layout(
        title="Activation memory against depth", x="depth / layers", y="activation memory / MB", height=440
    )
    layout.yaxis.type = "log"
    layout.yaxis.update(log_ticks(p.y for one in info.series for p in one.points))
    return draw(
        traces(info.series, x="depth %{x}", y="<b>%{y:.4g} MB</b> of activations and temporaries"), layout
    )


def _extrapolations(growth: list[Growth], rows: list[Row]) -> list[Series]:
    """Each fitted power law from the deepest trial on to `FURTHER` times its depth, marked as such."""
    depths = {r["trial_id"]: r["depth"] for r in rows}
    series = []
    for strategy, laws in sorted(group_by(growth, lambda g: g.strategy).items()):
        lines = []
        bands = tuple(_band(law, [depths[i] for i in law.ids]) for law in laws if law.fit.low is not None)
        for law in laws:
            deepest = max(depths[i] for i in law.ids)
            text = f"extrapolated from n = {law.fit.n}: depth to the power {law.fit.slope + 0.0:.2f}"
            lines.append(
                tuple(
                    Point(x=x, y=10 ** law.fit.at(math.log10(x)) / MB, ids=law.ids, text=text)
                    for x in (deepest, FURTHER * deepest)
                )
            )
        series.append(
            Series(
                name=f"{strategy} · extrapolated",
                lines=tuple(lines),
                color=strategy_color(strategy),
                role="fit",
                mode="lines",
                dash="dot",
                opacity=0.55,
            )
        )
        if bands:
            series.append(
                Series(
                    name=f"{strategy} · extrapolated",
                    lines=bands,
                    color=strategy_color(strategy),
                    role="band",
                    mode="lines",
                    opacity=0.35,
                )
            )
    return series


def _band(law: Growth, depths: list[int]) -> tuple[Point, ...]:
    """The outline of what the 95 % interval of the power allows, from the deepest trial on.

    The lines of both ends of the interval go through the mean of the points, as the fitted one does.
    """
    middle = sum(map(math.log10, depths)) / len(depths)
    deepest = max(depths)
    ends = (law.fit.low or 0.0, law.fit.high or 0.0)
    corners = [(deepest, ends[0]), (FURTHER * deepest, ends[0])]
    corners += [(FURTHER * deepest, ends[1]), (deepest, ends[1]), corners[0]]
    return tuple(
        Point(x=x, y=10 ** (law.fit.at(middle) + power * (math.log10(x) - middle)) / MB, ids=law.ids)
        for x, power in corners
    )


def _label(row: Row) -> str:
    return f"{row['family']}, width {width_text(row)}, {precision_label(row)}"


def _notes(growth: list[Growth], rows: list[Row]) -> list[str]:
    if not rows:
        return []
    notes = ["Lines join trials that differ in depth and seed alone."]
    if growth:
        notes.append(
            "Dotted lines are not measured: they extrapolate a fitted power law to twice the depth, within "
            "the 95 % interval of its power (shaded)."
        )
    for strategy, group in sorted(group_by(growth, lambda g: g.strategy).items()):
        slopes = sorted({f"{g.fit.slope + 0.0:.2f}".replace("-0.00", "0.00") for g in group}, key=float)
        most = max(group, key=lambda g: g.fit.n)
        spread = slopes[0] if len(slopes) == 1 else f"{slopes[0]} to {slopes[-1]}"
        interval = ""
        if most.fit.low is not None and most.fit.high is not None:
            ends = [f"{end:.2f}".replace("-0.00", "0.00") for end in (most.fit.low, most.fit.high)]
            interval = f", 95 % interval {ends[0]} to {ends[1]}"
        notes.append(
            f"{strategy}: memory grows with depth to the power {spread} ({count_text(len(group), 'line')}; "
            f"{most.label}: {most.fit.slope + 0.0:.2f}{interval}, n = {most.fit.n})."
        )
    sources = sorted({r["memory_source"] or "unknown" for r in rows})
    notes.append(f"{count_text(len(rows), 'trial')}, measured by {' and '.join(sources)}.")
    return notes
