"""Reconstruction and gradient error of reversing against depth, by precision; zero has its own place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.cohort import Cohort, cohort_of
from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.laws.growth import Bend, Fit, fit_bend, fit_power, power_text
from analysis.stats import Row, finite, group_by
from analysis.store.store import Store
from analysis.theme import FEWEST_TICKS, axis_style, base_layout, precision_look
from analysis.wording import count_text, precision_label

PANELS = (
    ("reconstruction_rel_error", "reconstruction error / relative"),
    ("gradient_rel_error", "gradient error / relative"),
)


@dataclass(frozen=True, kw_only=True)
class Law:
    """How an error grows in one comparable group: proportional to depth^slope.

    Attributes:
        label: the precision.
        column: the error.
        fit: its power.
        bend: whether one power law will do; None with too few points to tell.
        initial: whether the errors are those at initialization, and not at the end of training.

    """

    label: str
    column: str
    fit: Fit
    bend: Bend | None
    initial: bool = False


@dataclass(frozen=True, kw_only=True)
class ErrorDepthInfo:
    """Errors by depth.

    Attributes:
        floors: per panel, the place on the log axis where exactly zero is drawn; None if nothing is zero.
        laws: fits over the positive errors of groups that span three depths or more.

    """

    series: tuple[Series, ...]
    floors: tuple[float | None, ...]
    laws: tuple[Law, ...]
    notes: tuple[str, ...]


def info(store: Store) -> ErrorDepthInfo:
    """Collects the trials that reverse and were probed."""
    trials = cohort_of(store).ended_ok("depth")
    rows = trials.where(np.logical_or.reduce([trials.finite(column) for column, _ in PANELS]))
    looks = sorted(rows.grouped(precision_label).items())
    series, floors, laws = [], [], []
    for panel, (column, _) in enumerate(PANELS, start=1):
        values = [r[column] for r in rows if finite(r[column])]
        floor = zero_place(values)
        floors.append(floor)
        for label, look in looks:
            marks = [_mark(r, column, floor) for r in look if finite(r[column])]
            base = Series(
                name=label,
                lines=(tuple(marks),),
                **precision_look(look[0]),
                role="trials",
                panel=panel,
                keys=(("precision", label),),
                opacity=0.9,
            )
            if marks:
                series.append(base)
            lines = []
            for group in look.alike("depth", "seed"):
                law = _law(label, column, group)
                if law:
                    laws.append(law)
                    positive = [r for r in group if finite(r[column]) and r[column] > 0]
                    lines.append(_fit_line(law.fit, positive))
            if lines:
                series.append(
                    replace(base, lines=tuple(lines), role="fit", mode="lines", dash="dot", opacity=0.6)
                )
    laws += _initial_laws(store, rows)
    return ErrorDepthInfo(
        series=tuple(series), floors=tuple(floors), laws=tuple(laws), notes=tuple(_notes(rows, laws, floors))
    )


def _law(label: str, column: str, group: Sequence[Row], *, initial: bool = False) -> Law | None:
    """The power of the depth in one comparable group; None below three depths with a positive error."""
    points = [(r["depth"], r[column]) for r in group if finite(r.get(column)) and r[column] > 0]
    x, y = [p[0] for p in points], [p[1] for p in points]
    fit = fit_power(x, y)
    if fit is None or fit.distinct < 3:
        return None
    return Law(label=label, column=column, fit=fit, bend=fit_bend(x, y), initial=initial)


def _initial_laws(store: Store, rows: Cohort) -> list[Law]:
    """Laws of the probes before training: of each precision, the largest comparable group."""
    columns = [column for column, _ in PANELS]
    worst = ", ".join(f"max({column}) AS {column}" for column in columns)
    probes = store.sql(f"SELECT trial_id, {worst} FROM blocks WHERE epoch = 0 GROUP BY trial_id").to_pylist()
    by_trial = {p["trial_id"]: p for p in probes}
    started = rows.where(rows.having("trial_id", by_trial.__contains__))
    found = []
    for label, look in sorted(started.grouped(precision_label).items()):
        largest = max(look.alike("depth", "seed"), key=len)
        group = [{**row, **by_trial[row["trial_id"]]} for row in largest]
        laws = (_law(label, column, group, initial=True) for column in columns)
        found += [law for law in laws if law is not None]
    return found


def figure(info: ErrorDepthInfo) -> go.Figure | None:
    """Draws two panels over one depth axis; None if there is no point to draw."""
    if not info.series:
        return None
    layout = base_layout(title="Error of reversing against depth", x="", y=PANELS[0][1], height=620)
    layout.yaxis.update(domain=[0.54, 1.0])
    layout.update(
        yaxis2={**axis_style(PANELS[1][1]), "domain": [0.0, 0.46]},
        xaxis2={**axis_style("depth / layers"), "anchor": "y2", "matches": "x"},
    )
    # Both axes are logarithmic, so that a power law is a straight line.
    depths = {p.x for one in info.series if one.role == "trials" for p in one.points}
    for axis in (layout.xaxis, layout.xaxis2):
        axis.update(type="log", **_depth_ticks(depths))
    layout.xaxis.update(anchor="y", showticklabels=False)
    result = draw(traces(info.series, x="depth %{x}", y="<b>%{y:.2e}</b> relative error"), layout)
    for panel, floor in enumerate(info.floors, start=1):
        axis = "yaxis" if panel == 1 else f"yaxis{panel}"
        values = [p.y for one in info.series if one.panel == panel for p in one.points]
        set_error_axis(result, axis, values, floor)
    return result


def _depth_ticks(depths: set[Any]) -> dict[str, Any]:
    """A tick at every depth, or at a dozen of them from the smallest to the largest."""
    ordered = sorted(depths)
    shown = (
        ordered
        if len(ordered) <= 12
        else sorted({ordered[round(i * (len(ordered) - 1) / 11)] for i in range(12)})
    )
    return {"tickmode": "array", "tickvals": shown, "ticktext": [f"{depth:g}" for depth in shown]}


def zero_place(values: Sequence[float]) -> float | None:
    """Where exactly zero goes on a log axis: a decade and a half below the smallest positive value."""
    if not any(v == 0 for v in values):
        return None
    positive = [v for v in values if v > 0]
    return 10.0 ** (math.floor(math.log10(min(positive))) - 1.5) if positive else 1e-17


def set_error_axis(figure: go.Figure, axis: str, values: Sequence[float], floor: float | None) -> None:
    """A log axis with one tick per decade or so, and a tick named ``exactly 0`` at the floor."""
    positive = [v for v in values if v > 0 and v != floor]
    lowest = math.floor(math.log10(min(positive))) if positive else -16
    highest = math.ceil(math.log10(max(positive))) if positive else -14
    while highest - lowest < FEWEST_TICKS - 1:
        lowest, highest = (lowest - 1, highest) if (highest - lowest) % 2 else (lowest, highest + 1)
    step = max(1, math.ceil((highest - lowest) / 7))
    powers = list(range(lowest, highest + 1, step))
    ticks = [10.0**p for p in powers]
    texts = [f"10<sup>{p}</sup>" for p in powers]
    low = lowest - 0.3
    if floor is not None:
        ticks.insert(0, floor)
        texts.insert(0, "exactly 0")
        low = math.log10(floor) - 0.5
        reference = "y" if axis == "yaxis" else "y" + axis.removeprefix("yaxis")
        figure.add_shape(
            type="line",
            xref="paper",
            yref=reference,
            x0=0,
            x1=1,
            y0=floor * 10**0.75,
            y1=floor * 10**0.75,
            line={"dash": "dash", "width": 1, "color": "rgba(128,128,128,0.5)"},
        )
    figure.update_layout(
        {
            axis: {
                "type": "log",
                "tickmode": "array",
                "tickvals": ticks,
                "ticktext": texts,
                "range": [low, highest + 0.3],
            }
        }
    )


def _mark(row: Row, column: str, floor: float | None) -> Point:
    zero = row[column] == 0
    return Point(
        x=row["depth"],
        y=floor if zero and floor else row[column],
        ids=(row["trial_id"],),
        text=describe([row]),
        value_text="exactly 0" if zero else "",
    )


def _fit_line(fit: Fit, rows: list[Row]) -> tuple[Point, ...]:
    ids = tuple(r["trial_id"] for r in rows)
    text = f"fit: the error grows with depth to the power {fit.slope:.2f} (n = {fit.n})"
    ends = (min(r["depth"] for r in rows), max(r["depth"] for r in rows))
    return tuple(Point(x=d, y=10 ** fit.at(math.log10(d)), ids=ids, text=text) for d in ends)


def _notes(rows: Sequence[Row], laws: list[Law], floors: list[float | None]) -> list[str]:
    if not rows:
        return []
    notes = [
        f"{count_text(len(rows), 'trial')}, probed at the end of training; a point is the worst block or "
        "parameter of one trial."
    ]
    if laws:
        notes.append("Powers of the depth that errors grow with, with 95 % intervals:")
    for label, group in group_by(laws, lambda law: law.label).items():
        notes.append(f"{label}: {'; '.join(_growth(group))}.")
    if any(floor is not None for floor in floors):
        notes.append("Errors of exactly zero lie below the dashed line.")
    return notes


def _growth(laws: Sequence[Law]) -> list[str]:
    """What the laws of one precision say of each error, after training and, if probed, before."""
    found = []
    for column, title in PANELS:
        parts = []
        for initial, when in ((False, ""), (True, "at initialization ")):
            mine = [law for law in laws if law.column == column and law.initial == initial]
            if mine:
                law = max(mine, key=lambda one: one.fit.n)
                parts.append(f"{when}{power_text(law.fit, law.bend)}")
        if parts:
            found.append(f"{title.partition(' /')[0]} {', '.join(parts)}")
    return found
