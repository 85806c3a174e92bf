"""Outcomes over the space: where trials ended otherwise than ok, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.stats import Row, finite, group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL
from analysis.theme import OUTCOME_COLORS, base_layout, count_axis, safe
from analysis.wording import count_text, joined, shape_text


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Trials that ended alike: outcome, exception class, message, and where in the space."""

    outcome: str
    error_class: str
    message: str
    where: str
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FailuresInfo:
    """Failures by how often they occur, and every trial's place and outcome for the figure.

    Attributes:
        places: per outcome, (place, trial id) of each trial in a place where something failed.

    """

    failures: tuple[Failure, ...]
    places: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    notes: tuple[str, ...]


def info(store: Store) -> FailuresInfo:
    """Groups the trials that did not end ok."""
    rows = store.rows("trials")
    bad = [r for r in rows if r["outcome"] != "ok"]
    groups = group_by(bad, lambda r: (r["outcome"], r["error_class"], r["error_message"]))
    failures = [
        Failure(
            outcome=outcome or "unknown",
            error_class=error or "",
            message=(message or "").strip(),
            where=_where(group),
            ids=tuple(r["trial_id"] for r in group),
        )
        for (outcome, error, message), group in groups.items()
    ]
    failures.sort(key=lambda f: (-len(f.ids), f.outcome, f.error_class, f.message))
    touched = {_place(r) for r in bad}
    places = [
        (outcome, tuple((_place(r), r["trial_id"]) for r in group if _place(r) in touched))
        for outcome, group in group_by(rows, lambda r: r["outcome"] or "unknown").items()
    ]
    order = list(OUTCOME_COLORS)
    places.sort(key=lambda item: order.index(item[0]) if item[0] in order else len(order))
    notes = []
    if bad:
        notes.append(
            f"{count_text(len(bad), 'trial')} of {len(rows):,} did not end ok. The bars show every trial of "
            "the models and precisions where one failed. None of them enters a front, a mean or a fit."
        )
    return FailuresInfo(
        failures=tuple(failures), places=tuple((o, p) for o, p in places if p), notes=tuple(notes)
    )


def figure(info: FailuresInfo) -> go.Figure | None:
    """Draws the outcomes as stacked bars; None if every trial ended ok."""
    if not info.failures:
        return None
    names = sorted({place for _, points in info.places for place, _ in points}, reverse=True)
    layout = base_layout(
        title="Outcomes where something failed", x="trials", y="", height=max(240, 140 + 44 * len(names))
    )
    layout.update(barmode="stack", bargap=0.35)
    most = max(Counter(place for _, points in info.places for place, _ in points).values())
    layout.xaxis.update(rangemode="tozero", **count_axis(most))
    layout.yaxis.update(categoryorder="array", categoryarray=[_label(n) for n in names])
    bars = [
        go.Histogram(
            name=safe(outcome),
            y=[_label(place) for place, _ in points],
            customdata=[trial for _, trial in points],
            marker={"color": OUTCOME_COLORS.get(outcome, NEUTRAL)},
            hovertemplate=f"<b>%{{x}}</b> {safe(outcome)}<br>%{{y}}<extra></extra>",
            meta={"role": "trials", "column": "", "scale": 1.0, "keys": [("outcome", outcome)]},
        )
        for outcome, points in info.places
    ]
    return go.Figure(bars, layout)


def _place(row: Row) -> str:
    network = joined(row["model"], shape_text({**row, "width": None}))
    return f"{network}\n{joined(row['strategy'], row['compute_dtype'])}"


def _label(place: str) -> str:
    return safe(place).replace("\n", "<br>")


def _where(rows: list[Row]) -> str:
    parts = []
    for name, label in (
        ("model", ""), ("depth", "depth "), ("width", "width "), ("strategy", ""), ("compute_dtype", "")
    ):  # fmt: skip
        values = sorted({r[name] for r in rows if r[name] is not None}, key=str)
        shown = ", ".join(f"{v:g}" if finite(v) else str(v) for v in values[:4])
        if values:
            parts.append(f"{label}{shown}" + (", …" if len(values) > 4 else ""))
    return " · ".join(parts)
