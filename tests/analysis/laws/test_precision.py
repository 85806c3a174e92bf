"""Effective size by bits, and errors of rebuilding by bits and depth, from laws that are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.laws.formats import SIGNIFICAND
from analysis.laws.loss import LawError
from analysis.laws.precision import fit_precision, fit_study_precision
from analysis.laws.relation import RelationError
from analysis.laws.stream import fit_stream
from analysis.store.store import open_store
from tests.analysis.conftest import trial_row, write_trials
from tests.analysis.laws.known_law import DATA, SIZES, TRUTH, true_loss, write_law

GAMMA = 2.5


def rows(noise=0.0):
    n, d, p = (
        np.array(values, float) for values in zip(*itertools.product(SIZES, DATA, (3, 4, 8, 24)), strict=True)
    )
    loss = true_loss(n * (1 - np.exp(-p / GAMMA)), d)
    return n, d, p, loss * np.exp(np.random.default_rng(0).normal(0, noise, len(n)))


def test_the_bits_that_a_parameter_needs_are_found():
    n, d, p, loss = rows()
    law = fit_precision(n, d, loss, {"compute": p}, resamples=5)
    assert law.gammas["compute"] == pytest.approx(GAMMA, rel=1e-2)
    assert law.a == pytest.approx(TRUTH["a"], rel=1e-2)
    assert law.share(compute=4) == pytest.approx(1 - np.exp(-4 / GAMMA), rel=1e-2)
    assert law.share(compute=53) == pytest.approx(1)


def test_with_noise_the_interval_holds_it():
    n, d, p, loss = rows(noise=0.005)
    law = fit_precision(n, d, loss, {"compute": p}, resamples=60)
    low, high = law.interval("compute")
    assert low <= GAMMA <= high
    assert high / low < 1.5
    assert law.warnings == ()


def test_bits_that_change_nothing_are_told():
    n, d, p, _ = rows()
    noise = np.random.default_rng(1).normal(0, 0.01, len(n))
    law = fit_precision(n, d, true_loss(n, d) * np.exp(noise), {"stream": p + 8}, resamples=40)
    assert any("do not determine γ of stream" in warning for warning in law.warnings)


def test_one_precision_is_refused(tmp_path):
    n, d, _, loss = rows()
    with pytest.raises(LawError, match="must vary; received 24"):
        fit_precision(n, d, loss, {"compute": np.full(len(n), 24.0)})
    store = write_law(tmp_path / "store", sizes=SIZES[:3], data=DATA[:3], seeds=(0,))
    with pytest.raises(LawError, match="at least two formats"):
        fit_study_precision(open_store(store, "law"))


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Errors of 2^-P·depth^0.7 in three formats, and exact streams."""
    trials = []
    for depth, compute in itertools.product((14, 26, 50, 110), ("fp32", "fp16", "bf16")):
        error = 2.0 ** -SIGNIFICAND[compute] * depth**0.7
        trials.append(
            trial_row(depth=depth, compute=compute, reconstruction_rel_error=error, gradient_rel_error=None)
        )
        trials.append(
            trial_row(depth=depth, compute=compute, seed=1, coupling="exact", reconstruction_rel_error=0.0)
        )
    return open_store(write_trials(tmp_path_factory.mktemp("errors") / "store", trials), "demo")


def test_a_bit_of_the_stream_halves_the_error_and_depth_raises_it(errors):
    law = fit_stream(errors, "reconstruction_rel_error")
    assert law.per_bit == pytest.approx(1.0, abs=1e-6)
    assert law.per_doubling == pytest.approx(0.7, abs=1e-6)
    assert (law.exact, law.exact_worst, law.trials) == (12, 0.0, 12)
    assert law.alone


def test_one_format_is_refused(errors):
    with pytest.raises(RelationError, match="differ in stream_dtype"):
        fit_stream(errors, "reconstruction_rel_error", where="compute_dtype = 'fp32'")
