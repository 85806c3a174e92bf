"""Which precision may a reversible network of some depth be trained in, and what does it cost?

A precision is safe at a depth if the worst gradient of any parameter, computed from rebuilt activations, is
within `TOLERANCE` of the one from stored activations, in the median over seeds, there and at every smaller
depth measured. Its cost is the geometric mean of the ratios of step time and activation memory to ordinary
fp32, over trials of equal settings and seed that reverse on the same machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.fits import Bend, Fit, fit_bend, fit_power
from analysis.labels import precision_label, precision_rank
from analysis.stats import Estimate, Row, finite, group_by, pairs, ratio, settings_key
from analysis.units import error_text, ratio_text

TOLERANCE = 0.01
"""Relative error of a gradient: far below the noise between two batches."""

REFERENCE = "fp32"
_SAME = ("device", "hostname_hash", "cpu_threads", "memory_source")


@dataclass(frozen=True, kw_only=True)
class PrecisionVerdict:
    """One precision.

    Attributes:
        label: such as ``bf16 on fp32 stream, exact``.
        depths: the depths it was measured at, ascending.
        safe_to: the largest of them up to which it is safe; None if it is not even at the smallest.
        gradient_error: median over seeds of the worst gradient error at the largest depth.
        reconstruction_error: the same of the rebuilt activations.
        growth: of the reconstruction error with depth; None if it is 0 or spans too few depths.
        bend: whether that growth is one power law.
        time: step time against reversing in fp32.
        memory: activation memory against reversing in fp32.
        n: trials.
    """

    label: str
    depths: tuple[int, ...]
    safe_to: int | None
    gradient_error: float
    reconstruction_error: float
    growth: Fit | None
    bend: Bend | None
    time: Estimate | None
    memory: Estimate | None
    n: int


def precision_verdicts(rows: Iterable[Row]) -> list[PrecisionVerdict]:
    """One verdict for each precision, usual ones first.

    Judged are finished trials that reverse without anchors; where they differ in more than precision, depth
    and seed, the largest set that does not.
    """
    rebuilt = [
        row
        for row in rows
        if row["outcome"] == "ok"
        and row["strategy"] == "reverse"
        and row.get("anchor_every") is None
        and all(finite(row[c]) for c in ("depth", "gradient_rel_error", "reconstruction_rel_error"))
    ]
    comparable = group_by(rebuilt, lambda row: settings_key(row, "precision", "depth", "seed"))
    usable = max(comparable.values(), key=len, default=[])
    groups = group_by(usable, precision_label)
    return [_verdict(label, groups[label], usable) for label in sorted(groups, key=precision_rank)]


def precision_answer(rows: Iterable[Row]) -> str:
    """The answer in a few sentences with numbers; it says what is missing where there is nothing to say."""
    found = precision_verdicts(rows)
    if not found:
        return (
            "Which precision may be used? No finished trial that reverses was probed yet; "
            "`revstudy run precision` answers this."
        )
    depth = max(v.depths[-1] for v in found)
    safe = [v for v in found if v.safe_to == depth]
    others = [v for v in found if v.safe_to != depth]
    text = f"A reversible network of depth {depth} may be trained in "
    if safe:
        text += "; or in ".join(f"{v.label} ({_evidence(v)})" for v in safe)
    else:
        text += "none of the precisions measured there"
    text += (
        f". Safe means that no parameter's gradient is further than {100 * TOLERANCE:g} % from the stored "
        "one, in the median over seeds."
    )
    if others:
        text += f" Not shown to be safe at that depth: {'; '.join(map(_limit, others))}."
    return text


def _verdict(label: str, group: list[Row], usable: list[Row]) -> PrecisionVerdict:
    by_depth = dict(sorted(group_by(group, lambda row: row["depth"]).items()))
    medians = {d: statistics.median(r["gradient_rel_error"] for r in rows) for d, rows in by_depth.items()}
    safe_to = None
    for depth, error in medians.items():
        if error > TOLERANCE:
            break
        safe_to = depth
    deepest = max(by_depth)
    xs, ys = [r["depth"] for r in group], [r["reconstruction_rel_error"] for r in group]
    twins = pairs(
        usable,
        "precision",
        treatment=lambda row: precision_label(row) == label != REFERENCE,
        control=lambda row: precision_label(row) == REFERENCE,
        same=_SAME,
    )
    return PrecisionVerdict(
        label=label,
        depths=tuple(by_depth),
        safe_to=safe_to,
        gradient_error=medians[deepest],
        reconstruction_error=statistics.median(r["reconstruction_rel_error"] for r in by_depth[deepest]),
        growth=fit_power(xs, ys),
        bend=fit_bend(xs, ys),
        time=ratio(twins, "step_time_s"),
        memory=ratio(twins, "memory_activation_bytes"),
        n=len(group),
    )


def _evidence(verdict: PrecisionVerdict) -> str:
    parts = [f"gradient error {error_text(verdict.gradient_error)}"]
    if verdict.time:
        parts.append(f"{ratio_text(verdict.time)} the step time of fp32")
    if verdict.memory:
        parts.append(f"{verdict.memory.mean:.2f} times its activation memory")
    return ", ".join(parts)


def _limit(verdict: PrecisionVerdict) -> str:
    if verdict.safe_to == verdict.depths[-1]:
        error = error_text(verdict.gradient_error)
        return f"{verdict.label} (measured to depth {verdict.safe_to} only, and safe there: {error})"
    measured = f"gradient error {error_text(verdict.gradient_error)} at depth {verdict.depths[-1]}"
    safe = f"safe to depth {verdict.safe_to}" if verdict.safe_to else "unsafe at every depth measured"
    growth = ""
    if (fit := verdict.growth) and fit.distinct >= 3 and fit.low is not None and fit.high is not None:
        growth = (
            f", reconstruction error grows with depth to the power {fit.slope:.2f} "
            f"({fit.low:.2f} to {fit.high:.2f}, n = {fit.n})"
        )
        if verdict.bend and verdict.bend.significant:
            growth += f", changing from {verdict.bend.first:.2f} to {verdict.bend.last:.2f}"
    return f"{verdict.label} ({safe}, {measured}{growth})"
