"""How activation memory grows with depth or width: lines, fitted power laws, and what lies beyond them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from analysis.cohort import cohort_of
from analysis.figures.means import named
from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.laws.growth import Fit, fit_power
from analysis.stats import Row, group_by
from analysis.store.store import Store
from analysis.strategies import strategy_color
from analysis.theme import base_layout, family_symbol, log_ticks
from analysis.wording import MB, count_text, joined, precision_label, width_text

FURTHER = 2
"""Extrapolated lines end at so many times the depth, or width, of the largest trial."""

Factor = Literal["depth", "width"]
MEASURED_ALIKE = ("memory_source", "device")


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the activation memory of one comparable group grows: bytes are proportional to factor^slope."""

    label: str
    strategy: str
    fit: Fit
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GrowthInfo:
    """Lines of (depth or width, activation memory in MB) through trials that differ in it and the seed alone.

    Attributes:
        factor: ``depth`` or ``width``.
        series: the lines, then the extrapolated ones with the areas that their intervals allow.
        growth: the fits.
        notes: how it is to be read.

    """

    factor: Factor
    series: tuple[Series, ...]
    growth: tuple[Growth, ...]
    notes: tuple[str, ...]


def growth_of(store: Store, factor: Factor) -> GrowthInfo:
    """Collects the lines, and fits a power law to each that spans three depths, or widths, or more."""
    trials = cohort_of(store).ended_ok()
    rows = trials.where(trials.positive("memory_activation_bytes") & trials.positive(factor))
    series, growth = [], []
    looks = rows.by("strategy", "family").items()
    for key, look in sorted(looks, key=lambda item: named(item[0])):
        strategy, family = named(key)
        lines = []
        for group in look.alike(factor, "seed", same=MEASURED_ALIKE):
            line = []
            for value, same in sorted(group_by(group, lambda r: r[factor]).items()):
                mean = sum(r["memory_activation_bytes"] for r in same) / len(same)
                line.append(
                    Point(x=value, y=mean / MB, ids=tuple(r["trial_id"] for r in same), text=describe(same))
                )
            lines.append(tuple(line))
            fit = fit_power([r[factor] for r in group], [r["memory_activation_bytes"] for r in group])
            if fit and fit.distinct >= 3:
                ids = tuple(r["trial_id"] for r in group)
                growth.append(Growth(label=_label(group[0], factor), strategy=strategy, fit=fit, ids=ids))
        series.append(
            Series(
                name=joined(strategy, family),
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
    series += _extrapolations(growth, rows, factor)
    notes = tuple(_notes(growth, rows, factor))
    return GrowthInfo(factor=factor, series=tuple(series), growth=tuple(growth), notes=notes)


def growth_figure(info: GrowthInfo, *, x: str) -> go.Figure | None:
    """Draws it over an axis named `x`; None if there is no point to draw."""
    if not info.series:
        return None
    layout = base_layout(title=f"Activation memory against {info.factor}", x=x, y="activation memory / MB")
    layout.yaxis.type = "log"
    layout.yaxis.update(log_ticks(p.y for one in info.series for p in one.points))
    hover = "<b>%{y:.4g} MB</b> of activations and temporaries"
    return draw(traces(info.series, x=f"{info.factor} %{{x}}", y=hover), layout)


def _extrapolations(growth: list[Growth], rows: Sequence[Row], factor: Factor) -> list[Series]:
    """Each fitted power law from the largest trial on to `FURTHER` times its size, marked as such."""
    sizes = {r["trial_id"]: r[factor] for r in rows}
    series = []
    for strategy, laws in sorted(group_by(growth, lambda g: g.strategy).items()):
        lines = []
        bands = tuple(_band(law, [sizes[i] for i in law.ids]) for law in laws if law.fit.low is not None)
        for law in laws:
            largest = max(sizes[i] for i in law.ids)
            text = f"extrapolated from n = {law.fit.n}: {factor} to the power {law.fit.slope + 0.0:.2f}"
            lines.append(
                tuple(
                    Point(x=x, y=10 ** law.fit.at(math.log10(x)) / MB, ids=law.ids, text=text)
                    for x in (largest, FURTHER * largest)
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


def _band(law: Growth, sizes: list[float]) -> tuple[Point, ...]:
    """Return the outline of what the 95 % interval of the power allows, from the largest trial on.

    The lines of both ends of the interval go through the mean of the points, as the fitted one does.
    """
    middle = sum(map(math.log10, sizes)) / len(sizes)
    largest = max(sizes)
    ends = (law.fit.low or 0.0, law.fit.high or 0.0)
    corners = [(largest, ends[0]), (FURTHER * largest, ends[0])]
    corners += [(FURTHER * largest, ends[1]), (largest, ends[1]), corners[0]]
    return tuple(
        Point(x=x, y=10 ** (law.fit.at(middle) + power * (math.log10(x) - middle)) / MB, ids=law.ids)
        for x, power in corners
    )


def _label(row: Row, factor: Factor) -> str:
    other = f"width {width_text(row)}" if factor == "depth" else f"depth {row['depth']}"
    return f"{row['family']}, {other}, {precision_label(row)}"


def _notes(growth: list[Growth], rows: Sequence[Row], factor: Factor) -> list[str]:
    if not rows:
        return []
    notes = [f"Lines join trials that differ in {factor} and seed alone."]
    if growth:
        notes.append(
            f"Dotted lines are not measured: they extrapolate a fitted power law to twice the {factor}, "
            "within the 95 % interval of its power (shaded)."
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
            f"{strategy}: memory grows with {factor} to the power {spread} "
            f"({count_text(len(group), 'line')}; {most.label}: "
            f"{most.fit.slope + 0.0:.2f}{interval}, n = {most.fit.n})."
        )
    sources = sorted({r["memory_source"] or "unknown" for r in rows})
    notes.append(f"{count_text(len(rows), 'trial')}, measured by {' and '.join(sources)}.")
    return notes
