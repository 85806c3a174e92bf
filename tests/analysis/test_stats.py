import math

import numpy as np
import pytest

from analysis.laws.growth import fit_line, fit_power
from analysis.pareto import pareto_mask
from analysis.stats import difference, estimate, family_twins, pairs, ratio, settings_key, sign_flip_p


def test_an_interval_needs_three_values():
    assert estimate([]) is None
    assert estimate([float("nan"), None, float("inf")]) is None
    two = estimate([1.0, 3.0])
    assert (two.mean, two.low, two.high, two.n) == (2.0, None, None, 2)
    three = estimate([1.0, 2.0, 3.0])
    assert three.low < three.mean < three.high
    assert three.n == 3


def test_equal_values_have_an_interval_of_no_width():
    same = estimate([0.5] * 5)
    assert (same.mean, same.low, same.high, same.n) == (0.5, 0.5, 0.5, 5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [estimate(rng.normal(0, 1, size=30), resamples=400) for _ in range(300)]
    covered = sum(e.low <= 0 <= e.high for e in found) / len(found)
    assert 0.88 <= covered <= 0.99


def test_sign_flips_count_every_assignment_of_signs():
    assert sign_flip_p([-0.1, -0.25, -0.6]) == 2 / 8
    assert sign_flip_p([1, 1, 1, 1, 1, 1]) == 2 / 64
    assert sign_flip_p([1, -1]) == sign_flip_p([0.0, 0.0]) == sign_flip_p([]) == 1
    assert sign_flip_p([0.5] * 40) < 1e-3
    assert sign_flip_p([0.5, -0.5] * 20) == 1


def test_the_interval_is_the_same_every_time():
    values = list(np.random.default_rng(2).normal(size=20))
    assert estimate(values) == estimate(values)


def test_twins_are_paired_by_everything_but_the_factor(new_trial):
    rows = [
        new_trial(strategy=s, seed=i, depth=d) for s in ("store", "reverse") for i in (0, 1) for d in (14, 26)
    ]
    rows += [new_trial(strategy="reverse", seed=5)]
    found = pairs(
        rows,
        "strategy",
        treatment=lambda r: r["strategy"] == "reverse",
        control=lambda r: r["strategy"] == "store",
    )
    assert len(found) == 4
    for pair in found:
        assert pair.treatment["strategy"] == "reverse"
        assert pair.control["strategy"] == "store"
        assert (pair.treatment["seed"], pair.treatment["depth"]) == (
            pair.control["seed"],
            pair.control["depth"],
        )


@pytest.mark.parametrize("column", ["learning_rate", "batch_size", "data", "epochs", "workers", "width"])
def test_trials_of_other_settings_are_no_twins(new_trial, column):
    one = new_trial()
    other = new_trial(**{column: {"data": "cifar10"}.get(column, 7)})
    assert settings_key(one, "seed") != settings_key(other, "seed")


def test_a_setting_that_has_no_column_of_its_own_parts_trials_too(new_trial):
    one = new_trial(config_json='{"train": {"momentum": 0.9}, "seed": 0}')
    other = new_trial(config_json='{"train": {"momentum": 0.0}, "seed": 0}')
    assert settings_key(one, "seed") != settings_key(other, "seed")
    reseeded = new_trial(seed=3, config_json='{"train": {"momentum": 0.9}, "seed": 3}')
    assert settings_key(one, "seed") == settings_key(reseeded, "seed")


@pytest.mark.parametrize("text", [None, "", "not json", "[1, 2]", "3"])
def test_settings_that_cannot_be_parsed_leave_the_columns(new_trial, text):
    assert settings_key(new_trial(config_json=text, seed=1), "seed") == settings_key(
        new_trial(config_json=text, seed=2), "seed"
    )


def test_difference_and_ratio_are_paired(new_trial):
    rows = []
    for seed in range(4):
        rows.append(
            new_trial(strategy="store", seed=seed, accuracy_test=0.5 + 0.1 * seed, step_time_s=1.0 + seed)
        )
        rows.append(
            new_trial(
                strategy="reverse", seed=seed, accuracy_test=0.51 + 0.1 * seed, step_time_s=2.0 * (1 + seed)
            )
        )
    found = pairs(
        rows,
        "strategy",
        treatment=lambda r: r["strategy"] == "reverse",
        control=lambda r: r["strategy"] == "store",
    )
    effect = difference(found, "accuracy_test")
    assert effect.mean == pytest.approx(0.01)
    assert effect.high - effect.low < 1e-9  # the spread over seeds cancels within pairs
    cost = ratio(found, "step_time_s")
    assert (cost.mean, cost.n) == (pytest.approx(2.0), 4)
    found[0].treatment["accuracy_test"] = float("nan")
    assert difference(found, "accuracy_test").n == 3


def test_family_twins_match_parameters_within_the_tolerance(new_trial):
    revnet = new_trial(family="revnet", strategy="reverse", parameters=100)
    stored = new_trial(family="revnet", strategy="store", parameters=100)
    near = new_trial(family="resnet", strategy="store", depth=32, parameters=105)
    far = new_trial(family="resnet", strategy="store", depth=20, parameters=150)
    (pair,) = family_twins([stored, revnet, far, near])
    assert pair.ids == (revnet["trial_id"], near["trial_id"])
    assert family_twins([revnet, far]) == []
    assert family_twins([revnet, {**near, "seed": 9}]) == []


def test_the_front_is_what_the_definition_says():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 12, size=(200, 3)).astype(float)
    directions = ("max", "min", "min")
    sign = np.array([-1, 1, 1])
    costs = points * sign
    expected = [not any((other <= one).all() and (other < one).any() for other in costs) for one in costs]
    assert pareto_mask(points.tolist(), directions).tolist() == expected


def test_a_point_that_is_not_finite_is_on_no_front():
    nan, inf = float("nan"), float("inf")
    assert pareto_mask([(nan, 1.0), (0.5, 2.0), (inf, 0.0)], ("max", "min")).tolist() == [False, True, False]
    assert pareto_mask([], ("max", "min")).tolist() == []
    with pytest.raises(ValueError, match="'max' or 'min', got 'up'"):
        pareto_mask([(1.0,)], ("up",))
    with pytest.raises(ValueError, match="2 objectives"):
        pareto_mask([(1.0,)], ("max", "min"))


def test_a_power_law_is_found_with_its_interval():
    depths = [14, 26, 38, 110, 218]
    rng = np.random.default_rng(3)
    fit = fit_power(depths, [1e-7 * d**1.5 * math.exp(rng.normal(0, 0.02)) for d in depths])
    assert fit.slope == pytest.approx(1.5, abs=0.05)
    assert fit.low < 1.5 < fit.high
    flat = fit_power(depths, [5.0] * 5)
    assert flat.slope == pytest.approx(0, abs=1e-12)
    assert (fit.n, fit.distinct) == (5, 5)


def test_a_line_needs_two_places_and_its_interval_three_points():
    assert fit_line([1, 1], [2, 3]) is None
    assert fit_line([1, float("nan")], [2, 3]) is None
    assert fit_power([1, 2], [0.0, 1.0]) is None
    two = fit_line([1, 2], [3, 5])
    assert (two.slope, two.intercept, two.low, two.high) == (2.0, 1.0, None, None)
    assert two.at(10) == 21.0


def test_the_slope_interval_agrees_with_the_textbook():
    # y = 2x with residuals +1, -2, +1 on x = 0, 1, 2: slope 2, standard error sqrt(6 / 1 / 2), t = 12.706
    fit = fit_line([0, 1, 2], [1, 0, 5])
    assert fit.slope == 2.0
    assert fit.high - fit.slope == pytest.approx(12.706 * math.sqrt(3), rel=1e-6)
