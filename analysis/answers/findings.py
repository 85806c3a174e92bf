"""The three findings a reader should take away: memory and time, the score of the task, precision."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from analysis.answers.recommend import (
    Configuration,
    comparable,
    configurations,
    configurations_of,
    eligible,
)
from analysis.cohort import Cohort, cohort_of
from analysis.faithful import LIMIT_TEXT, is_faithful, rebuilds_nothing
from analysis.laws.growth import fit_line
from analysis.pairs import Pair, difference, family_twins, pairs, ratio
from analysis.score import BITS_PER_BYTE, main_score, score_of
from analysis.stats import Row, estimate, finite, group_by
from analysis.store.store import Store
from analysis.strategies import is_reversing, is_stored
from analysis.wording import (
    bytes_text,
    count_text,
    error_text,
    factor_text,
    precision_label,
    precision_rank,
    ratio_text,
    shape_text,
    width_text,
)

SAME_MACHINE = ("device", "hostname_hash", "cpu_threads", "memory_source")
"""Columns that must agree, besides the settings, before two times or footprints are compared."""
_MEASURED_ALIKE = ("memory_source", "device")


ALIKE = 1.05
"""Peaks whose largest is at most this many times the smallest are called the same."""


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
    points = configurations_of(store) if everything else configurations(ok)
    return [memory_finding(ok), score_finding(ok, points), precision_finding(ok)]


def reverse_against_store(ok: Cohort, *, same: tuple[str, ...] = ()) -> list[Pair]:
    """Trials that reverse and rebuild something, each with the one that stores at equal settings and seed."""
    return pairs(
        ok,
        "strategy",
        treatment=lambda row: is_reversing(row["strategy"]) and not rebuilds_nothing(row),
        control=lambda row: is_stored(row["strategy"]),
        same=same,
    )


def memory_finding(ok: Cohort) -> str:
    """How much activation memory reversing saves at the largest depth, how it grows, and what it costs."""
    measured = ok.where(ok.positive("memory_activation_bytes") & ok.finite("depth"))
    twins = reverse_against_store(measured, same=_MEASURED_ALIKE)
    if not twins:
        without_pair = _equal_memory(measured) or (
            "Memory: no trial pair yet that reverses and stores under equal settings and seed; run a study "
            "with `memory.strategy` over store and reverse to learn what reversing saves."
        )
        return without_pair + _nothing_to_rebuild(ok)
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
    return text + _nothing_to_rebuild(ok)


def _equal_memory(measured: Cohort) -> str:
    """What is to say of trials that were given the same memory, as `match` does; empty for others."""
    with_peaks = measured.where(measured.positive("memory_peak_bytes"))
    compared = [row for row in with_peaks if is_reversing(row["strategy"]) or is_stored(row["strategy"])]
    peaks = [row["memory_peak_bytes"] for row in compared]
    if len({is_stored(row["strategy"]) for row in compared}) < 2 or max(peaks) > ALIKE * min(peaks):
        return ""
    reversed_most = max(row["parameters"] for row in compared if is_reversing(row["strategy"]))
    stored_most = max(row["parameters"] for row in compared if is_stored(row["strategy"]))
    return (
        f"Memory: reversing and storing were given the same memory here ({bytes_text(min(peaks))} to "
        f"{bytes_text(max(peaks))} at the peak of a step, {count_text(len(compared), 'trial')}). The largest "
        f"network has {reversed_most:,} parameters where it is reversed, and {stored_most:,} where it is "
        "stored."
    )


def _nothing_to_rebuild(ok: Cohort) -> str:
    """Says how many trials are set to reverse and have nothing to rebuild."""
    n = sum(map(rebuilds_nothing, ok))
    if not n:
        return ""
    return (
        f" Not counted here: {count_text(n, 'trial')} set to reverse with nothing to rebuild, because a "
        "stage of one unit keeps its input."
    )


def score_finding(ok: Cohort, points: Sequence[Configuration]) -> str:
    """Paired differences of the task's metric: reversing against storing, and RevNets against ResNets."""
    metric = main_score(ok)
    judged = ok.grouped(score_of).get(metric, ok[:0])
    column = metric.test if judged.finite(metric.test).any() else metric.val
    name = "test" if column == metric.test else "validation"
    strategy = difference(reverse_against_store(judged), column)
    twins = [p for p in family_twins(judged) if finite(p.treatment[column]) and finite(p.control[column])]
    family = difference(twins, column)
    parts = []
    if strategy:
        parts.append(
            f"reversing changes {name} {metric.name} by {metric.difference_text(strategy)} against storing, "
            "same settings and seed"
        )
    if family:
        gap = max(abs(1 - p.control["parameters"] / p.treatment["parameters"]) for p in twins)
        parts.append(
            f"RevNets differ from ResNets of like size (parameters within {math.ceil(100 * gap)} %) by "
            f"{metric.difference_text(family)}, same seed"
        )
    if best := _best([c for c in points if c.metric is metric], column):
        parts.append(best)
    if metric is BITS_PER_BYTE and (bigram := estimate(judged.numbers("bigram_bits_per_byte"))):
        parts.append(f"a bigram count model of the text takes {metric.text(bigram.mean)} in validation")
    label = metric.title
    if not parts:
        return f"{label}: no finished trial with a finite {metric.name} yet; a study on real data brings it."
    if not strategy and not family:
        parts.append(
            "there are no paired twins yet: run both strategies, or both families, on the same seeds"
        )
    direction = f" ({metric.direction})" if metric.better == "min" else ""
    return f"{label}: " + "; ".join(parts) + f"{direction}."


def _best(points: Sequence[Configuration], column: str) -> str:
    """The configuration that is best in validation, of those that a headline may name."""
    groups = comparable(points)
    if not groups:
        return ""
    data, largest = max(groups, key=lambda group: sum(len(c.rows) for c in group[1]))
    shown = [c for c in eligible(largest) if column == c.metric.val or c.test is not None]
    if not shown:
        return ""
    where = f" on {data}" if len({name for name, _ in groups}) > 1 else ""
    best = max(shown, key=lambda c: (c.merit, c.ids))
    value = best.score if column == best.metric.val else best.test
    assert value is not None
    row, interval = best.rows[0], best.metric.interval_text(value)
    what = ", ".join(filter(None, (row["model"], shape_text(row), row["strategy"], precision_label(row))))
    return (
        f"the configuration best in validation{where} ({what}) reaches "
        f"{best.metric.text(value.mean)} in {'validation' if column == best.metric.val else 'test'} "
        f"({count_text(value.n, 'seed')}{f', {interval}' if interval else ''})"
    )


def precision_finding(ok: Cohort) -> str:
    """What rounding costs: the errors of reversing by arithmetic, at the largest depth of each."""
    reversing = [
        r
        for r in ok
        if is_reversing(r["strategy"]) and r["reconstruction_rel_error"] is not None and finite(r["depth"])
    ]
    if not reversing:
        if nothing := sum(map(rebuilds_nothing, ok)):
            return (
                f"Precision: {count_text(nothing, 'trial')} set to reverse had nothing to rebuild, because a "
                "stage of one unit keeps its input. A deeper network shows what rounding costs."
            )
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
        rebuilt = _median(r["reconstruction_rel_error"] for r in at_depth)
        part = f"in {label} it rebuilds" if parts else f"reversing in {label} rebuilds"
        part += f" activations to a relative error of {error_text(rebuilt)}"
        gradients = [r["gradient_rel_error"] for r in at_depth if r["gradient_rel_error"] is not None]
        if gradients:
            part += f", and gradients to {error_text(_median(gradients))},"
        parts.append(
            part + f" at depth {deepest} (median of {count_text(len(at_depth), 'trial')}{_far(at_depth)})"
        )
    return "Precision: " + "; ".join(parts) + ". Each value is the trial's worst block or parameter."


def _median(errors: Iterable[float]) -> float:
    return statistics.median(math.inf if math.isnan(error) else error for error in errors)


def _far(rows: Sequence[Row]) -> str:
    """How many of some trials have gradients that are not faithful; nothing where none has."""
    errors = [r["gradient_rel_error"] for r in rows if r["gradient_rel_error"] is not None]
    far = sum(not is_faithful(error) for error in errors)
    return f"; in {far} of them more than {LIMIT_TEXT}, which is not safe" if far else ""


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
