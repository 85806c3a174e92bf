"""What not storing costs in time: step time over that of the stored twin, against depth."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.answers.findings import SAME_MACHINE
from analysis.cohort import Cohort, cohort_of
from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.pairs import Pair, pairs, ratio
from analysis.stats import finite, group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL, is_rival, is_stored, strategy_color
from analysis.theme import base_layout, family_symbol
from analysis.wording import factor_text, joined, ratio_text

THEORY = 4 / 3
"""Step time of recomputing every block once: 4 forwards' worth of work in place of 3, a backward being 2."""


@dataclass(frozen=True, kw_only=True)
class OverheadInfo:
    """Pairs of equal settings and seed: (depth, step time over the stored twin's), by strategy."""

    series: tuple[Series, ...]
    notes: tuple[str, ...]


def info(store: Store) -> OverheadInfo:
    """Pairs each trial that does not store with the one that stores, on the same machine."""
    found = stored_pairs(store)
    series, notes = [], []
    looks = group_by(found, lambda p: (p.treatment["strategy"], p.treatment["family"] or ""))
    for (strategy, family), group in sorted(looks.items()):
        series.append(
            Series(
                name=joined(strategy, family),
                lines=(tuple(_point(p) for p in group),),
                color=strategy_color(strategy),
                symbol=family_symbol(family),
                role="pair",
                size=9,
                opacity=0.8,
                keys=(("strategy", strategy), ("family", family)),
            )
        )
        if cost := ratio(group, "step_time_s"):
            note = f"{strategy}, {family}: {ratio_text(cost)} the step time of storing"
            saved = ratio(
                [p for p in group if finite(p.treatment["memory_activation_bytes"])],
                "memory_activation_bytes",
            )
            if saved:
                note += f", for {factor_text(saved.mean)} the activation memory"
            notes.append(note + ".")
    crowded = sum(1 for p in found if _shared(p))
    if crowded:
        notes.append(
            f"{crowded} of {len(found)} pairs shared the machine with other trials "
            "while timed: read them as rough."
        )
    if found:
        notes.append("The dashed line is one extra forward, 4/3; the dotted one is storing itself.")
    return OverheadInfo(series=tuple(series), notes=tuple(notes))


def stored_pairs(store: Store) -> list[Pair]:
    """Timed trials that do not store, each beside its stored twin: equal settings, seed and machine."""
    return store.remember("stored_pairs", lambda: _stored_pairs(cohort_of(store)))


def _stored_pairs(trials: Cohort) -> list[Pair]:
    ok = trials.ended_ok("depth")
    return pairs(
        ok.where(ok.positive("step_time_s")),
        "strategy",
        treatment=lambda r: is_rival(r["strategy"]),
        control=lambda r: is_stored(r["strategy"]),
        same=SAME_MACHINE,
    )


def figure(info: OverheadInfo) -> go.Figure | None:
    """Draws it; None if there is no pair."""
    if not info.series:
        return None
    layout = base_layout(
        title="Time of a training step against its stored twin",
        x="depth / layers",
        y="step time / stored twin's",
    )
    result = draw(traces(info.series, x="depth %{x}", y="<b>%{y:.3f}×</b> the step time of storing"), layout)
    for level, dash in ((1.0, "dot"), (THEORY, "dash")):
        result.add_shape(
            type="line", xref="paper", x0=0, x1=1, y0=level, y1=level,
            line={"dash": dash, "width": 1.2, "color": NEUTRAL}, layer="below",
        )  # fmt: skip
    values = [p.y for one in info.series for p in one.points]
    low, high = min(0.95, *values), max(1.4, *values)
    result.update_layout(yaxis={"range": [low - 0.05 * (high - low), high + 0.08 * (high - low)]})
    return result


def _point(pair: Pair) -> Point:
    value = pair.treatment["step_time_s"] / pair.control["step_time_s"]
    text = describe([pair.treatment]) + f"<br>against {pair.control['trial_id']}"
    memory = [side["memory_activation_bytes"] for side in (pair.treatment, pair.control)]
    if all(finite(m) and m > 0 for m in memory):
        text += f"<br>{factor_text(memory[0] / memory[1])} its activation memory"
    if _shared(pair):
        text += "<br>timed while other trials ran"
    return Point(x=pair.treatment["depth"], y=value, ids=pair.ids, text=text)


def _shared(pair: Pair) -> bool:
    return any((side["concurrent_trials"] or 1) > 1 for side in (pair.treatment, pair.control))
