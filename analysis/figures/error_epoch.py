"""Reconstruction error during training: whether weights drift to where reversing is less exact."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.error_depth import set_error_axis, zero_place
from analysis.figures.series import MAX_LINES, Series, draw, line_series, traces
from analysis.stats import Row, finite, group_by, sample
from analysis.store.store import Store
from analysis.theme import base_layout, count_axis
from analysis.wording import count_text


@dataclass(frozen=True, kw_only=True)
class ErrorEpochInfo:
    """Lines of (epoch, relative error) of trials probed in two epochs or more, from initialization on."""

    series: tuple[Series, ...]
    floor: float | None
    notes: tuple[str, ...]


def info(store: Store) -> ErrorEpochInfo:
    """Collects the probed epochs, sampled as the learning curves are."""
    often = store.sql(
        "SELECT trial_id FROM epochs WHERE isfinite(reconstruction_rel_error) AND epoch IS NOT NULL "
        "GROUP BY trial_id HAVING count(*) > 1"
    )
    probed = set(often["trial_id"].to_pylist())
    trials = [r for r in store.rows("trials") if r["trial_id"] in probed]
    chosen = sample(trials, MAX_LINES)
    rows = store.rows_of("epochs", (r["trial_id"] for r in chosen))
    rows = [*_at_initialization(store, {r["trial_id"] for r in chosen}), *rows]
    by_trial = group_by(
        (r for r in rows if finite(r["reconstruction_rel_error"]) and finite(r["epoch"])),
        lambda r: r["trial_id"],
    )
    floor = zero_place([r["reconstruction_rel_error"] for rows in by_trial.values() for r in rows])
    series = line_series(
        chosen,
        by_trial,
        x="epoch",
        y="reconstruction_rel_error",
        markers=True,
        floor=floor,
        positive=floor is None,
    )
    notes = []
    if chosen:
        which = "all" if len(chosen) == len(trials) else f"a sample of {len(chosen)} of"
        notes.append(
            f"{which.capitalize()} {count_text(len(trials), 'trial')} probed in two epochs or more; epoch 0 "
            "is before the first step."
        )
    return ErrorEpochInfo(series=tuple(series), floor=floor, notes=tuple(notes))


def _at_initialization(store: Store, trials: set[str]) -> list[Row]:
    """The worst block of each trial before its first step, as an epoch 0."""
    worst = store.sql(
        "SELECT trial_id, epoch, max(reconstruction_rel_error) AS reconstruction_rel_error "
        "FROM blocks WHERE epoch = 0 AND reconstruction_rel_error IS NOT NULL GROUP BY trial_id, epoch"
    )
    return [row for row in worst.to_pylist() if row["trial_id"] in trials]


def figure(info: ErrorEpochInfo) -> go.Figure | None:
    """Draws it; None if no trial was probed twice."""
    if not info.series:
        return None
    layout = base_layout(
        title="Reconstruction error during training", x="epoch", y="reconstruction error / relative"
    )
    layout.xaxis.update(
        count_axis(max(p.x for one in info.series for p in one.points if not isinstance(p.x, str)))
    )
    result = draw(traces(info.series, x="epoch %{x}", y="<b>%{y:.2e}</b> relative error"), layout)
    set_error_axis(result, "yaxis", [p.y for one in info.series for p in one.points], info.floor)
    return result
