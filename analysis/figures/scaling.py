"""Throughput against workers: how much faster data-parallel training is than one worker of equal settings."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.cohort import cohort_of
from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.pairs import Pair, ratio
from analysis.stats import group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL
from analysis.theme import base_layout
from analysis.wording import ratio_text

_SAME = ("device", "hostname_hash", "seed")
_KINDS = (
    ("equal batch per worker", "#0072B2", "circle"),
    ("equal batch in all", "#E69F00", "square"),
)


@dataclass(frozen=True, kw_only=True)
class ScalingInfo:
    """Pairs of a trial on several workers and one on a single worker: (workers, ratio of examples a second).

    Attributes:
        series: pairs whose batch per worker is equal, and those whose batch over all workers is.
        most: the largest number of workers.
        notes: the mean speedup by number of workers, with interval and n.

    """

    series: tuple[Series, ...]
    most: int
    notes: tuple[str, ...]


def info(store: Store) -> ScalingInfo:
    """Pairs trials of equal settings and seed that differ in workers, and in batch size if at all."""
    trials = cohort_of(store).ended_ok("workers", "batch_size")
    found: dict[str, list[Pair]] = {name: [] for name, *_ in _KINDS}
    for comparable in trials.where(trials.positive("examples_per_s")).alike("workers", same=_SAME):
        for row in comparable:
            if row["workers"] < 2:
                continue
            batches = row["batch_size"] / row["workers"], row["batch_size"]
            for name, batch in zip(found, batches, strict=True):
                alone = (r for r in comparable if r["workers"] == 1 and r["batch_size"] == batch)
                if (control := next(alone, None)) is not None:
                    found[name].append(Pair(treatment=row, control=control))
    series, notes, most = [], [], 1
    for name, color, symbol in _KINDS:
        if not found[name]:
            continue
        series.append(
            Series(
                name=name,
                lines=(tuple(_point(p) for p in found[name]),),
                color=color,
                symbol=symbol,
                role="pair",
                size=9,
                opacity=0.8,
            )
        )
        for workers, group in sorted(group_by(found[name], lambda p: p.treatment["workers"]).items()):
            most = max(most, workers)
            if speedup := ratio(group, "examples_per_s"):
                notes.append(
                    f"{workers} workers, {name}: {ratio_text(speedup)} the examples a second of one."
                )
    if series:
        notes.append("The dotted line is one more time as fast with each worker.")
    return ScalingInfo(series=tuple(series), most=most, notes=tuple(notes))


def figure(info: ScalingInfo) -> go.Figure | None:
    """Draws it; None if no trial on several workers has a counterpart on one."""
    if not info.series:
        return None
    layout = base_layout(
        title="Throughput against workers",
        x="workers / processes",
        y="examples a second / one worker's",
        height=380,
    )
    layout.xaxis.update(
        range=[0.5, info.most + 0.5], tickmode="linear", tick0=1, dtick=max(1, info.most // 8)
    )
    layout.yaxis.update(rangemode="tozero")
    result = draw(traces(info.series, x="%{x} workers", y="<b>%{y:.2f}×</b> the examples a second"), layout)
    result.add_shape(
        type="line", x0=1, x1=info.most, y0=1, y1=info.most,
        line={"dash": "dot", "width": 1.2, "color": NEUTRAL}, layer="below",
    )  # fmt: skip
    return result


def _point(pair: Pair) -> Point:
    return Point(
        x=pair.treatment["workers"],
        y=pair.treatment["examples_per_s"] / pair.control["examples_per_s"],
        ids=pair.ids,
        text=describe([pair.treatment]) + f"<br>against {pair.control['trial_id']}",
    )
