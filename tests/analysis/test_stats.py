import math

import numpy as np
import pytest
import scipy.stats

from analysis.laws.growth import fit_line, fit_power
from analysis.pareto import pareto_mask
from analysis.stats import estimate, estimates, sign_flip_p


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


def test_the_order_of_the_values_does_not_count():
    values = np.random.default_rng(5).normal(size=9).tolist()
    assert estimate(values[::-1]) == estimate(values)
    assert sign_flip_p(values[::-1]) == sign_flip_p(values)
    assert sign_flip_p(values[::-1] * 3) == sign_flip_p(values * 3)


@pytest.mark.parametrize("n", [3, 12, 64, 65, 300, 4_000])
def test_intervals_are_those_of_scipy(n):
    random = np.random.default_rng(n)
    groups = [np.sort(random.normal(size=n)) for _ in range(5)]
    resamples = max(200, min(2_000, 2_000_000 // n))
    for values, found in zip(groups, estimates(groups), strict=True):
        expected = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12, atol=1e-14)


def test_many_intervals_at_once_are_those_of_each():
    random = np.random.default_rng(4)
    groups = [random.normal(size=random.integers(0, 70)).tolist() for _ in range(200)]
    groups += [[float("nan"), None], [2.0] * 5]
    for together, group in zip(estimates(groups), groups, strict=True):
        alone = estimate(group)
        assert (together is None) == (alone is None)
        if alone is not None:
            assert together.n == alone.n
            ends = [(e.mean, e.low or 0, e.high or 0) for e in (together, alone)]
            np.testing.assert_allclose(*ends, rtol=1e-12, atol=1e-14)


def test_sign_flips_are_the_permutation_test_of_scipy():
    values = np.random.default_rng(6).normal(0.4, 1, size=11)
    expected = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip_p(values.tolist()) == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize("n", [4, 9, 60])
def test_the_interval_of_a_slope_is_that_of_scipy(n):
    random = np.random.default_rng(n)
    x = np.arange(n, dtype=float)
    y = 3 * x + random.normal(size=n)
    expected = scipy.stats.linregress(x, y)
    reach = scipy.stats.t.ppf(0.975, n - 2) * expected.stderr
    fit = fit_line(x.tolist(), y.tolist())
    np.testing.assert_allclose(
        (fit.low, fit.high), (expected.slope - reach, expected.slope + reach), rtol=1e-10
    )


def test_sign_flips_count_every_assignment_of_signs():
    assert sign_flip_p([-0.1, -0.25, -0.6]) == 2 / 8
    assert sign_flip_p([1, 1, 1, 1, 1, 1]) == 2 / 64
    assert sign_flip_p([1, -1]) == sign_flip_p([0.0, 0.0]) == sign_flip_p([]) == 1
    assert sign_flip_p([0.5] * 40) < 1e-3
    assert sign_flip_p([0.5, -0.5] * 20) == 1


def test_the_interval_is_the_same_every_time():
    values = list(np.random.default_rng(2).normal(size=20))
    assert estimate(values) == estimate(values)


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
    # y = 2x with residuals +1, -2, +1 on x = 0, 1, 2: slope 2, standard error sqrt(6 / 1 / 2), t = 12.7062
    fit = fit_line([0, 1, 2], [1, 0, 5])
    assert fit.slope == 2.0
    assert fit.high - fit.slope == pytest.approx(12.7062047 * math.sqrt(3), rel=1e-6)
