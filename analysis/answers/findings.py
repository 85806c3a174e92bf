"""The three findings a reader should take away: memory and time, accuracy, precision."""

from __future__ import annotations

import math
import statistics

from analysis.cohort import Cohort, cohort_of
from analysis.laws.growth import fit_line
from analysis.pairs import Pair, difference, family_twins, pairs, ratio
from analysis.stats import Row, finite, group_by
from analysis.store.store import Store
from analysis.strategies import is_reversing, is_stored
from analysis.wording import (
    bytes_text,
    count_text,
    error_text,
    factor_text,
    points_text,
    precision_label,
    precision_rank,
    ratio_text,
    width_text,
)

SAME_MACHINE = ("device", "hostname_hash", "cpu_threads", "memory_source")
"""Columns that must agree, besides the settings, before two times or footprints are compared."""
_MEASURED_ALIKE = ("memory_source", "device")


def findings(store: Store, study: str | None = None) -> list[str]:
    """Return three findings in plain sentences, each with its numbers and n; each says so where data is
    missing.

    Args:
        store: an open store.
        study: only the trials of this study.

    """
    everything = study is None or study == store.study
    trials = cohort_of(store) if everything else Cohort(store.trials_of(study))
    ok = trials.ended_ok()
    return [memory_finding(ok), accuracy_finding(ok), precision_finding(ok)]


def reverse_against_store(ok: Cohort, *, same: tuple[str, ...] = ()) -> list[Pair]:
    """Trials that reverse, each with the trial that stores under equal settings and seed."""
    return pairs(
        ok.where(ok.having("family", "revnet".__eq__)),
        "strategy",
        treatment=lambda row: is_reversing(row["strategy"]),
        control=lambda row: is_stored(row["strategy"]),
        same=same,
    )


def memory_finding(ok: Cohort) -> str:
    """How much activation memory reversing saves at the largest depth, how it grows, and what it costs."""
    measured = ok.where(ok.positive("memory_activation_bytes") & ok.finite("depth"))
    twins = reverse_against_store(measured, same=_MEASURED_ALIKE)
    if not twins:
        return (
            "Memory: no trial pair yet that reverses and stores under equal settings and seed; run a study "
            "with `memory.strategy` over store and reverse to learn what reversing saves."
        )
    deepest = max(p.treatment["depth"] for p in twins)
    at_depth = [p for p in twins if p.treatment["depth"] == deepest]
    pair = max(at_depth, key=lambda p: p.control["memory_activation_bytes"])
    low, high = pair.treatment["memory_activation_bytes"], pair.control["memory_activation_bytes"]
    saved = f"{factor_text(high / low)} less" if low < high else f"{factor_text(low / high)} more"
    text = (
        f"Memory: at depth {deepest:g} reversing takes {saved} activation memory than storing "
        f"({bytes_text(low)} against {bytes_text(high)}; {pair.treatment['model']}, width "
        f"{width_text(pair.treatment)}, {pair.treatment['compute_dtype']}; the largest of "
        f"{count_text(len(at_depth), 'pair')} at this depth)."
    )
    growth = [
        _growth(measured, twins, pair.control, "storing"),
        _growth(measured, twins, pair.treatment, "reversing"),
    ]
    if all(growth):
        sentence = "; ".join(filter(None, growth))
        text += f" {sentence[0].upper()}{sentence[1:]}."
    timed = reverse_against_store(ok.where(ok.finite("step_time_s")), same=SAME_MACHINE)
    if cost := ratio(timed, "step_time_s"):
        text += f" A training step takes {ratio_text(cost)} the time of storing"
        crowded = sum(
            1
            for p in timed
            if max(p.treatment["concurrent_trials"] or 1, p.control["concurrent_trials"] or 1) > 1
        )
        text += f"; {crowded} of these pairs shared the machine with other trials." if crowded else "."
    return text


def accuracy_finding(ok: Cohort) -> str:
    """Paired differences in accuracy: reversing against storing, and RevNets against ResNet twins."""
    column = "accuracy_test" if any(finite(r["accuracy_test"]) for r in ok) else "accuracy_val"
    name = "test" if column == "accuracy_test" else "validation"
    strategy = difference(reverse_against_store(ok), column)
    twins = [p for p in family_twins(ok) if finite(p.treatment[column]) and finite(p.control[column])]
    family = difference(twins, column)
    parts = []
    if strategy:
        parts.append(
            f"reversing changes {name} accuracy by {points_text(strategy)} against storing, "
            "same settings and seed"
        )
    if family:
        gap = max(abs(1 - p.control["parameters"] / p.treatment["parameters"]) for p in twins)
        parts.append(
            f"RevNets differ from ResNets of like size (parameters within {math.ceil(100 * gap)} %) by "
            f"{points_text(family)}, same seed"
        )
    scored = [r for r in ok if finite(r["accuracy_val"]) and finite(r[column])]
    if scored:
        best = max(scored, key=lambda r: (r["accuracy_val"], r["trial_id"]))
        parts.append(
            f"the trial best in validation ({best['model']}, depth {best['depth']}, "
            f"width {width_text(best)}, {best['strategy']}, {best['compute_dtype']}, "
            f"seed {best['seed']}) reaches {100 * best[column]:.1f} % in {name}"
        )
    if not parts:
        return "Accuracy: no finished trial with a finite accuracy yet; a study on real images brings it."
    if not strategy and not family:
        parts.append(
            "there are no paired twins yet: run both strategies, or both families, on the same seeds"
        )
    return "Accuracy: " + "; ".join(parts) + "."


def precision_finding(ok: Cohort) -> str:
    """What rounding costs: the errors of reversing by arithmetic, at the largest depth of each."""
    reversing = [
        r
        for r in ok
        if is_reversing(r["strategy"]) and finite(r["reconstruction_rel_error"]) and finite(r["depth"])
    ]
    if not reversing:
        return (
            "Precision: no finished trial that reverses was probed yet; a study with "
            "`memory.strategy: reverse` and `precision.compute` over fp32 and bf16 shows what rounding costs."
        )
    parts: list[str] = []
    for label, group in sorted(
        group_by(reversing, precision_label).items(), key=lambda item: precision_rank(item[0])
    ):
        deepest = max(r["depth"] for r in group)
        at_depth = [r for r in group if r["depth"] == deepest]
        rebuilt = statistics.median(r["reconstruction_rel_error"] for r in at_depth)
        part = f"in {label} it rebuilds" if parts else f"reversing in {label} rebuilds"
        part += f" activations to a relative error of {error_text(rebuilt)}"
        gradients = [r["gradient_rel_error"] for r in at_depth if finite(r["gradient_rel_error"])]
        if gradients:
            part += f", and gradients to {error_text(statistics.median(gradients))},"
        parts.append(part + f" at depth {deepest} (median of {count_text(len(at_depth), 'trial')})")
    return (
        "Precision: " + "; ".join(parts) + ". Each trial counts with its worst block and its worst parameter."
    )


def _growth(measured: Cohort, twins: list[Pair], shown: Row, verb: str) -> str | None:
    """How one strategy grows with depth, among pairs that differ from the shown one in depth alone."""
    paired = {trial_id for pair in twins for trial_id in pair.ids}
    comparable = next(g for g in measured.alike("depth", "seed", same=_MEASURED_ALIKE) if shown in g)
    rows = [row for row in comparable if row["trial_id"] in paired]
    fit = fit_line([r["depth"] for r in rows], [r["memory_activation_bytes"] for r in rows])
    if fit is None:
        return None
    first, last = min(rows, key=lambda r: r["depth"]), max(rows, key=lambda r: r["depth"])
    before, after = first["memory_activation_bytes"], last["memory_activation_bytes"]
    where = f"from depth {first['depth']} to {last['depth']}"
    if not is_stored(shown["strategy"]):
        where = "over the same depths"
    if before == after:
        return f"{verb} grows by 0 bytes {where}"
    return f"{verb} grows {factor_text(after / before)} {where} ({bytes_text(fit.slope)} per layer)"
