"""Pairs differ in one factor alone, and effects are those of pairs."""

import pytest

from analysis.pairs import difference, family_twins, pairs, ratio


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
