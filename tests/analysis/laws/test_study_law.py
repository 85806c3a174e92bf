"""From the rows of a store to the law that they were drawn from, and what the rows cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.laws.efficient import efficient
from analysis.laws.loss import NAMES, LawError, fit_loss
from analysis.laws.observations import ObservationError, observe
from analysis.laws.study_law import fit_study, lowest_losses
from analysis.store.store import open_store
from study.store.writer import write_study
from tests.analysis.laws.known_law import DATA, EARLY, SIZES, TRUTH, true_loss, write_law


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Trainings without noise."""
    return write_law(tmp_path_factory.mktemp("exact") / "store", noise=0.0, seeds=(0,))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Two seeds, with noise of 0.2 %."""
    return write_law(tmp_path_factory.mktemp("noisy") / "store")


def test_final_evaluations_give_the_law_to_two_digits(exact):
    found = fit_study(open_store(exact, "law"), resamples=40)
    for name, value in TRUTH.items():
        assert getattr(found.law, name) == pytest.approx(value, rel=1e-3)
    assert len(found.points) == len(SIZES) * len(DATA)
    assert found.points.final.all()
    assert found.early is None
    assert found.held_out.parameters == max(SIZES)
    assert abs(found.held_out.error) < 1e-4


def test_early_evaluations_are_brought_onto_the_law_of_final_ones(exact):
    found = fit_study(open_store(exact, "law"), evaluations="all", resamples=40)
    assert found.early == pytest.approx(EARLY, abs=2e-3)
    assert found.law.b == pytest.approx(TRUTH["b"], abs=0.005)
    # Of ten evaluations the last is final, one lies in the cooldown, eight at the full rate.
    assert len(found.points) == 9 * len(SIZES) * len(DATA)
    assert any("before the end of a schedule" in warning for warning in found.warnings)


def test_without_enough_data_auto_takes_early_evaluations_and_says_so(tmp_path):
    store = write_law(tmp_path / "store", data=DATA[-1:], seeds=(0,), noise=0.0)
    found = observe(open_store(store, "law"))
    assert (int(found.final.sum()), len(found)) == (len(SIZES), 9 * len(SIZES))
    assert any("48 of 54" in warning for warning in found.warnings)
    assert len(observe(open_store(store, "law"), evaluations="final")) == len(SIZES)


def test_every_evaluation_at_a_constant_rate_is_final(tmp_path):
    store = write_law(tmp_path / "store", schedule="constant", seeds=(0,), noise=0.0)
    found = observe(open_store(store, "law"))
    assert found.final.all()
    assert len(found) == 10 * len(SIZES) * len(DATA)


def test_evaluations_under_cosine_are_early_until_the_last(tmp_path):
    store = write_law(tmp_path / "store", schedule="cosine", seeds=(0,))
    assert len(observe(open_store(store, "law"))) == len(SIZES) * len(DATA)
    assert len(observe(open_store(store, "law"), evaluations="all")) == 10 * len(SIZES) * len(DATA)


def test_intervals_hold_the_truth_and_the_largest_rung(noisy):
    found = fit_study(open_store(noisy, "law"), resamples=300)
    for name in ("a", "b", "E"):
        low, high = found.law.interval(name)
        assert low <= TRUTH[name] <= high
    assert abs(found.held_out.error) < 0.01
    assert found.held_out.inside >= len(found.held_out.measured) / 2
    assert [rung.parameters for rung in found.rungs] == sorted(SIZES)
    assert not any("determine" in warning for warning in found.warnings)


def test_a_narrow_range_is_told(tmp_path):
    store = write_law(tmp_path / "store", sizes=(1_000_000, 1_300_000, 1_600_000), noise=0.005)
    found = fit_study(open_store(store, "law"), resamples=100)
    assert any("sizes span a factor of 1.6" in warning for warning in found.warnings)


def test_one_seed_and_many_passes_are_told(tmp_path):
    store = write_law(tmp_path / "store", seeds=(0,), examples_train=1000)
    warnings = fit_study(open_store(store, "law"), resamples=40).warnings
    assert any("one seed" in warning for warning in warnings)
    assert any("passed up to" in warning for warning in warnings)


def test_of_several_learning_rates_the_best_counts(tmp_path):
    store = write_law(tmp_path / "store", seeds=(0,), noise=0.0)
    before = fit_study(open_store(store, "law"), resamples=40).law
    write_law(store, seeds=(7,), noise=0.0, learning_rate=0.1, worse=1.2)
    write_study(store, {"name": "law"})
    found = fit_study(open_store(store, "law"), resamples=40)
    assert pytest.approx(before.E, rel=1e-6) == found.law.E
    assert any("30 trainings are left out" in note for note in found.points.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": "failed"}, "no trial that ended ok"),
        ({"parameters": None, "parameters_non_embedding": None}, "column parameters is empty"),
        ({"tokens_seen": None, "examples_seen": None}, "column examples_seen is empty"),
    ],
)
def test_rows_that_hold_no_law_are_refused(tmp_path, changes, message):
    store = write_law(tmp_path / "store", sizes=SIZES[:2], data=DATA[:2], seeds=(0,), **changes)
    with pytest.raises(ObservationError, match=message):
        observe(open_store(store, "law"))


def test_two_data_sets_are_not_fitted_as_one(tmp_path):
    store = write_law(tmp_path / "store", seeds=(0,))
    write_law(store, study="other", seeds=(1,), data=DATA[:2])
    write_law(store, study="third", seeds=(2,), family="gpt")
    with pytest.raises(ObservationError, match="one law holds for one family"):
        observe(open_store(store))
    assert len(observe(open_store(store), where="family = 'gpt'")) == len(SIZES) * len(DATA)


def test_too_few_trainings_are_refused(tmp_path):
    store = write_law(tmp_path / "store", sizes=SIZES[:2], data=DATA[:2], seeds=(0,))
    with pytest.raises(LawError, match="at least six rows"):
        fit_study(open_store(store, "law"), evaluations="final")


def test_the_best_use_of_compute_is_the_lowest_loss_on_its_curve():
    n, d = (x.ravel() for x in np.meshgrid(SIZES, DATA))
    law = fit_loss(n, d, true_loss(n, d), resamples=20)
    best = efficient(law, 1e19, per_pair=6.0)
    sizes = best.parameters * np.geomspace(0.2, 5, 2001)
    along = law.predict(sizes, 1e19 / 6 / sizes)
    assert best.loss <= along.min() + 1e-12
    assert sizes[along.argmin()] == pytest.approx(best.parameters, rel=0.01)
    assert best.low <= best.loss * 1.0001
    assert best.parameters * best.data * 6 == pytest.approx(1e19)


def test_curves_of_equal_compute_and_their_bias(exact):
    found = fit_study(open_store(exact, "law"), evaluations="all", resamples=40)
    curves = [curve for curve in found.curves if curve.inside]
    assert len(curves) >= 5
    for curve in curves:
        law_best = efficient(found.law, curve.compute, per_pair=found.per_pair).parameters
        # Without noise, the vertex is off by what the curve says it is off by.
        assert curve.best / law_best == pytest.approx(curve.bias, rel=0.05)


def test_the_lowest_losses_are_those_that_no_other_beats(noisy):
    points = observe(open_store(noisy, "law"))
    front = set(lowest_losses(points).tolist())
    for i in range(len(points)):
        beaten = any(
            points.compute[j] <= points.compute[i] and points.loss[j] < points.loss[i]
            for j in range(len(points))
        )
        assert beaten == (i not in front)


def test_plain_values_hold_everything_finite(noisy):
    found = fit_study(open_store(noisy, "law"), resamples=40).to_dict()
    assert set(found["law"]) == set(NAMES)
    assert all(math.isfinite(value["low"]) for value in found["law"].values())
    assert found["columns"]["data"] == "tokens_seen"
