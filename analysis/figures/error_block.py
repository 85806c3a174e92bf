"""Reconstruction error by block: where along the network the error of rebuilding builds up."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.error_depth import set_error_axis, zero_place
from analysis.figures.series import MAX_LINES, Series, draw, line_series, traces
from analysis.stats import finite, group_by, sample
from analysis.store.store import Store
from analysis.theme import base_layout, count_axis
from analysis.wording import count_text


@dataclass(frozen=True, kw_only=True)
class ErrorBlockInfo:
    """Lines of (block, relative error) of each trial's last probe."""

    series: tuple[Series, ...]
    floor: float | None
    notes: tuple[str, ...]


def info(store: Store) -> ErrorBlockInfo:
    """Collects the last probe of each trial, sampled as the learning curves are."""
    some = store.sql(
        "SELECT DISTINCT trial_id FROM blocks WHERE isfinite(reconstruction_rel_error) AND block IS NOT NULL"
    )
    probed = set(some["trial_id"].to_pylist())
    trials = [r for r in store.rows("trials") if r["trial_id"] in probed]
    chosen = sample(trials, MAX_LINES)
    rows = store.rows_of("blocks", (r["trial_id"] for r in chosen))
    probes = [r for r in rows if finite(r["reconstruction_rel_error"]) and finite(r["block"])]
    by_trial = group_by(probes, lambda r: r["trial_id"])
    floor = zero_place([r["reconstruction_rel_error"] for r in probes])
    last = {
        trial: [r for r in rows if r["epoch"] == max((r["epoch"] for r in rows), key=lambda e: e or 0)]
        for trial, rows in by_trial.items()
    }
    series = line_series(
        chosen,
        last,
        x="block",
        y="reconstruction_rel_error",
        markers=True,
        floor=floor,
        positive=floor is None,
    )
    notes = []
    if chosen:
        which = "all" if len(chosen) == len(trials) else f"a sample of {len(chosen)} of"
        notes.append(
            f"The last probe of {which} {count_text(len(trials), 'probed trial')}. Block 0 is rebuilt last; "
            "the first unit of a stage keeps its input, so the error starts anew there."
        )
    return ErrorBlockInfo(series=tuple(series), floor=floor, notes=tuple(notes))


def figure(info: ErrorBlockInfo) -> go.Figure | None:
    """Draws it; None if no block was probed."""
    if not info.series:
        return None
    layout = base_layout(
        title="Reconstruction error by block",
        x="block / position in the network",
        y="reconstruction error / relative",
    )
    layout.xaxis.update(
        count_axis(max(p.x for one in info.series for p in one.points if not isinstance(p.x, str)))
    )
    result = draw(traces(info.series, x="block %{x}", y="<b>%{y:.2e}</b> relative error"), layout)
    set_error_axis(result, "yaxis", [p.y for one in info.series for p in one.points], info.floor)
    return result
