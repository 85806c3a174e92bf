"""Which precision is safe at which depth, what it costs, and when growth with depth changes its law."""

import numpy as np
import pytest

from analysis.answers.precision import precision_answer, precision_verdicts
from analysis.laws.growth import fit_bend
from tests.analysis.conftest import trial_row

DEPTHS = (26, 50, 98, 194)


def trials(label, error, *, step=1.0, memory=1.0, **changes):
    compute, stream, coupling = label
    rows = []
    for depth in DEPTHS:
        for seed in (0, 1):
            row = trial_row(depth=depth, seed=seed, compute=compute, strategy="reverse")
            rows.append(
                row
                | {
                    "stream_dtype": stream,
                    "coupling": coupling,
                    "reconstruction_rel_error": error(depth) / 10,
                    "gradient_rel_error": error(depth),
                    "step_time_s": step * depth,
                    "memory_activation_bytes": int(memory * 1000 * depth),
                }
                | changes
            )
    return rows


FP32 = ("fp32", "fp32", "additive")
EXACT = ("bf16", "fp32", "exact")
BF16 = ("bf16", "bf16", "additive")


def test_safe_and_unsafe_precisions_with_their_cost():
    rows = [
        *trials(FP32, lambda depth: 1e-7 * depth),
        *trials(EXACT, lambda depth: 0.0, step=1.05),
        *trials(BF16, lambda depth: 1e-4 * depth, step=0.8, memory=0.5),
    ]
    fp32, bf16, exact = precision_verdicts(rows)
    assert (fp32.label, bf16.label, exact.label) == ("fp32", "bf16", "bf16 on fp32 stream, exact")
    assert (fp32.safe_to, bf16.safe_to, exact.safe_to) == (194, 98, 194)
    assert exact.gradient_error == 0
    assert exact.growth is exact.bend is fp32.time is None
    assert bf16.growth.slope == pytest.approx(1)
    assert not bf16.bend.significant
    assert exact.time.mean == pytest.approx(1.05)
    assert exact.time.n == 8
    assert bf16.memory.mean == pytest.approx(0.5)
    text = precision_answer(rows)
    assert text.startswith(
        "A reversible network of depth 194 may be trained in fp32 (gradient error 1.9e-5); or"
    )
    assert "Measured on digits with revnet38 at width 1, 24 trials of 2 seeds." in text
    assert "bf16 on fp32 stream, exact (gradient error exactly 0, 1.05" in text
    assert "Not shown to be safe at that depth: bf16 (safe to depth 98, gradient error 1.9e-2" in text
    assert "to the power 1.00" in text


def test_nothing_safe_and_nothing_measured():
    rows = trials(BF16, lambda depth: 1.0)
    assert "none of the precisions measured there" in precision_answer(rows)
    assert "unsafe at every depth measured" in precision_answer(rows)
    assert "revstudy run precision" in precision_answer([])
    stored = trials(FP32, lambda depth: 0.0, strategy="store")
    assert precision_verdicts(stored) == []


def test_one_seed_that_is_off_is_enough_to_be_unsafe():
    """A rounding boundary is crossed in some seeds only; a median over them would not tell."""
    rows = trials(("bf16", "fp32", "additive"), lambda depth: 1e-9 * depth)
    rows[-1]["gradient_rel_error"] = 0.0152
    (verdict,) = precision_verdicts(rows)
    assert verdict.safe_to == 98
    assert verdict.scattered
    assert "gradient error 1.5e-2 at depth 194 in one seed and 1.9e-7 in another" in precision_answer(rows)
    assert not precision_verdicts(trials(FP32, lambda depth: 1e-7 * depth))[0].scattered
    assert not precision_verdicts(trials(EXACT, lambda depth: 0.0))[0].scattered


def test_trials_that_diverged_are_told():
    rows = trials(BF16, lambda depth: 1.0)
    rows[0]["outcome"] = "diverged"
    assert precision_answer(rows).endswith("Diverged, and not judged: 1 trial in bf16.")


def test_an_exact_coupling_tells_how_much_of_its_range_it_used():
    rows = trials(EXACT, lambda depth: 0.0, stream_max=25.6, stream_limit=1024.0)
    assert "exactly 0, streams within 2.5 % of their range" in precision_answer(rows)


def test_the_set_that_spans_most_is_judged_not_the_one_with_most_trials():
    many = [row for number in range(3) for row in trials(FP32, lambda depth: 1.0, learning_rate=0.5)]
    for number, row in enumerate(many):
        row["seed"] = number
    few = [*trials(FP32, lambda depth: 1e-6), *trials(EXACT, lambda depth: 0.0)]
    verdicts = precision_verdicts([*many, *few])
    assert [v.label for v in verdicts] == ["fp32", "bf16 on fp32 stream, exact"]
    assert verdicts[0].safe_to == 194


def test_a_precision_that_was_not_measured_so_deep_is_not_called_unsafe():
    shallow = [row for row in trials(("fp64", "fp64", "additive"), lambda depth: 1e-14) if row["depth"] < 98]
    text = precision_answer([*trials(FP32, lambda depth: 1e-7), *shallow])
    assert text.endswith("fp64 (measured to depth 50 only, and safe there: 1.0e-14).")


def test_trials_with_anchors_or_other_settings_are_not_mixed_in():
    rows = trials(BF16, lambda depth: 1e-4)
    anchored = trials(BF16, lambda depth: 1.0, anchor_every=4)
    decayed = trials(BF16, lambda depth: 1.0, weight_decay=0.1)[:2]
    (verdict,) = precision_verdicts([*anchored, *decayed, *rows])
    assert verdict.safe_to == 194
    assert verdict.n == 8


def test_a_change_of_regime_is_seen_and_noise_is_not():
    rng = np.random.default_rng(0)
    x = [d for d in (8, 16, 32, 64, 128, 256) for _ in range(3)]
    noise = rng.normal(0, 0.05, len(x))
    power = [1e-7 * d * 10**e for d, e in zip(x, noise, strict=True)]
    broken = [1e-7 * (d + d**3 / 2000) * 10**e for d, e in zip(x, noise, strict=True)]
    line, bend = fit_bend(x, power), fit_bend(x, broken)
    assert line.low < 0 < line.high
    assert not line.significant
    assert bend.significant
    assert bend.first < 1.5 < 2 < bend.last


def test_no_bend_without_enough_points():
    assert fit_bend([1, 2, 3], [1, 2, 3]) is None
    assert fit_bend([1, 1, 2, 2], [1, 2, 3, 4]) is None
    assert fit_bend([1, 2, 4, 8], [0, 0, 0, 0]) is None


def test_why_bf16_on_an_fp32_stream_rebuilds_better_than_fp32_is_told_where_it_does():
    on_wide = trials(("bf16", "fp32", "additive"), lambda depth: 1e-9)
    better = precision_answer([*trials(FP32, lambda depth: 1e-7), *on_wide])
    assert "That bf16 on an fp32 stream rebuilds better than fp32 is no mistake." in better
    assert "crosses a rounding boundary of bf16" in better
    worse = precision_answer([*trials(FP32, lambda depth: 1e-10), *on_wide])
    assert "no mistake" not in worse


def test_an_error_that_is_no_number_is_not_safe_and_not_dropped():
    """The trial of an infinite error was left out, so that the other seed alone called the precision safe."""
    rows = trials(BF16, lambda depth: 1e-6)
    rows[-1]["gradient_rel_error"] = float("nan")
    (verdict,) = precision_verdicts(rows)
    assert (verdict.safe_to, verdict.n) == (98, 8)
    assert "gradient error not a finite number at depth 194 in one seed" in precision_answer(rows)
