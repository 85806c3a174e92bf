"""Which precision may a reversible network of some depth be trained in, and what does it cost?

A precision is safe at a depth if gradients are faithful (`analysis.faithful`) in every seed, there and at
every smaller depth. (The median over seeds would hide what happens in some of them only, as under bf16
arithmetic on an fp32 stream, where an error is of another order once a number has crossed a rounding
boundary.) Its cost is the geometric
mean of the ratios of step time and activation memory to ordinary fp32, over trials of equal settings and seed
that reverse on the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.cohort import Cohort
from analysis.faithful import LIMIT_TEXT, is_faithful, worst
from analysis.laws.growth import Bend, Fit, fit_bend, fit_power, power_text
from analysis.pairs import pairs, ratio
from analysis.stats import Estimate, Row, finite, group_by
from analysis.strategies import is_reversing
from analysis.wording import arithmetic_label, count_text, error_text, precision_rank, ratio_text, width_text

SCATTER = 100
"""Factor between seeds from which on their errors are of different orders."""

REFERENCE = "fp32"
_SAME = ("device", "hostname_hash", "cpu_threads", "memory_source")


@dataclass(frozen=True, kw_only=True)
class PrecisionVerdict:
    """One precision.

    Attributes:
        label: such as ``bf16 on fp32 stream, exact``.
        depths: the depths it was measured at, ascending.
        safe_to: the largest of them up to which it is safe; None if it is not even at the smallest.
        gradient_error: the worst gradient error at the largest depth, over seeds.
        least_gradient_error: that of the best seed there.
        reconstruction_error: the worst error of rebuilt activations there, over seeds.
        growth: of the reconstruction error with depth; None if it is 0 or spans too few depths.
        bend: whether that growth is one power law.
        time: step time against reversing in fp32.
        memory: activation memory against reversing in fp32.
        stream_share: of an exact coupling, the largest magnitude of a stream as a share of its limit.
        n: trials.
    """

    label: str
    depths: tuple[int, ...]
    safe_to: int | None
    gradient_error: float
    least_gradient_error: float
    reconstruction_error: float
    growth: Fit | None
    bend: Bend | None
    time: Estimate | None
    memory: Estimate | None
    stream_share: float | None
    n: int

    @property
    def scattered(self) -> bool:
        """Whether errors of two seeds are of different orders: a regime that has just begun."""
        return self.gradient_error > SCATTER * self.least_gradient_error


def precision_verdicts(rows: Iterable[Row]) -> list[PrecisionVerdict]:
    """Return one verdict for each precision, usual ones first.

    Judged are finished trials that reverse without anchors; where they differ in more than precision, depth
    and seed, the set that does not and spans the most precisions and depths.
    """
    return _verdicts(_comparable(rows))


def _verdicts(usable: Cohort) -> list[PrecisionVerdict]:
    groups = group_by(usable, arithmetic_label)
    return [_verdict(label, groups[label], usable) for label in sorted(groups, key=precision_rank)]


def _comparable(rows: Iterable[Row]) -> Cohort:
    """The trials that are judged."""
    ok = Cohort.of(rows).ended_ok("depth")
    whole = ok.having("strategy", is_reversing) & ok.having("anchor_every", lambda every: every is None)
    # An error that is no finite number is a measurement too: it says that the precision is not safe.
    for column in ("gradient_rel_error", "reconstruction_rel_error"):
        whole &= ok.having(column, lambda error: error is not None)
    comparable = ok.where(whole).alike("precision", "depth", "seed")
    return max(comparable, key=_span, default=ok.where(~ok.finite()))


def _span(rows: Sequence[Row]) -> tuple[int, int]:
    return len({(arithmetic_label(row), row["depth"]) for row in rows}), len(rows)


def precision_answer(rows: Iterable[Row]) -> str:
    """The answer in a few sentences with numbers; it says what is missing where there is nothing to say."""
    rows = Cohort.of(rows)
    usable = _comparable(rows)
    found = _verdicts(usable)
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
        ". Safe means that in no seed the gradient of any parameter is further than "
        f"{LIMIT_TEXT} from the stored one."
    )
    first, seeds = usable[0], len({row["seed"] for row in usable})
    rule = f", coupling {first['coupling_rule']}" if first.get("coupling_rule") else ""
    text += (
        f" Measured on {first['data']} with {first['model']} at width {width_text(first)}{rule}, "
        f"{count_text(len(usable), 'trial')} of {count_text(seeds, 'seed')}."
    )
    if others:
        text += f" Not shown to be safe at that depth: {'; '.join(map(_limit, others))}."
    text += _narrow_on_wide(found)
    lost = [r for r in rows if r["outcome"] == "diverged" and is_reversing(r["strategy"])]
    if lost:
        counts = {label: len(group) for label, group in group_by(lost, arithmetic_label).items()}
        named = (
            f"{count_text(counts[label], 'trial')} in {label}" for label in sorted(counts, key=precision_rank)
        )
        text += f" Diverged, and not judged: {', '.join(named)}."
    return text


def _narrow_on_wide(found: Sequence[PrecisionVerdict]) -> str:
    """Why narrow arithmetic on an fp32 stream rebuilds better than fp32, where it does: docs/precision.md."""
    errors = {v.label: v.reconstruction_error for v in found}
    fp32 = errors.get(REFERENCE, 0.0)
    better = [n for n in ("bf16", "fp16") if errors.get(f"{n} on fp32 stream", math.inf) < fp32]
    if not better:
        return ""
    narrow = better[0]
    return (
        f" That {narrow} on an fp32 stream rebuilds better than fp32 is no mistake. F and G read the stream "
        f"rounded to {narrow}. A stream that is off by far less than {narrow} can tell rounds to the same "
        "numbers, so that F and G return the same bits and the error does not grow. That ends when a number "
        f"crosses a rounding boundary of {narrow}; from there on the error is far larger than that of fp32."
    )


def _verdict(label: str, group: list[Row], usable: Cohort) -> PrecisionVerdict:
    by_depth = dict(sorted(group_by(group, lambda row: row["depth"]).items()))
    errors = {d: [r["gradient_rel_error"] for r in rows] for d, rows in by_depth.items()}
    safe_to = None
    for depth, values in errors.items():
        if not all(map(is_faithful, values)):
            break
        safe_to = depth
    deepest = max(by_depth)
    rebuilt = [r for r in group if finite(r["reconstruction_rel_error"])]
    xs, ys = [r["depth"] for r in rebuilt], [r["reconstruction_rel_error"] for r in rebuilt]
    shares = [r["stream_max"] / r["stream_limit"] for r in group if r.get("stream_max") and r["stream_limit"]]
    twins = pairs(
        usable,
        "precision",
        treatment=lambda row: arithmetic_label(row) == label != REFERENCE,
        control=lambda row: arithmetic_label(row) == REFERENCE,
        same=_SAME,
    )
    return PrecisionVerdict(
        label=label,
        depths=tuple(by_depth),
        safe_to=safe_to,
        gradient_error=worst(errors[deepest]) or 0.0,
        least_gradient_error=min((e for e in errors[deepest] if not math.isnan(e)), default=math.inf),
        reconstruction_error=worst(r["reconstruction_rel_error"] for r in by_depth[deepest]) or 0.0,
        growth=fit_power(xs, ys),
        bend=fit_bend(xs, ys),
        time=ratio(twins, "step_time_s"),
        memory=ratio(twins, "memory_activation_bytes"),
        stream_share=max(shares) if shares else None,
        n=len(group),
    )


def _evidence(verdict: PrecisionVerdict) -> str:
    parts = [f"gradient error {error_text(verdict.gradient_error)}"]
    if verdict.stream_share is not None:
        parts.append(f"streams within {100 * verdict.stream_share:.2g} % of their range")
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
    if verdict.scattered:
        measured += f" in one seed and {error_text(verdict.least_gradient_error)} in another"
    safe = f"safe to depth {verdict.safe_to}" if verdict.safe_to else "unsafe at every depth measured"
    growth = ""
    if (fit := verdict.growth) and fit.distinct >= 3 and fit.low is not None:
        growth = f", reconstruction error grows with depth to the power {power_text(fit, verdict.bend)}"
    return f"{verdict.label} ({safe}, {measured}{growth})"
