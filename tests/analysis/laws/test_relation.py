"""Powers and floors of any two columns, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.laws.loss import LawError
from analysis.laws.relation import RelationError, fit_relation
from analysis.laws.saturating import fit_saturating
from analysis.store.store import open_store
from tests.analysis.conftest import trial_row, write_trials


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Errors that grow with depth to the power 1.5 in fp32, and to the power 1 in bf16, and exact streams."""
    rows = []
    for depth in (14, 26, 38, 62, 110):
        for seed in (0, 1):
            factor = 1.02 if seed else 1.0
            errors = {"fp32": 1e-7 * depth**1.5, "bf16": 1e-3 * depth, "fp16": 0.0}
            rows += [
                trial_row(depth=depth, compute=compute, seed=seed, reconstruction_rel_error=error * factor)
                for compute, error in errors.items()
            ]
    return open_store(write_trials(tmp_path_factory.mktemp("relation") / "store", rows), "demo")


def test_each_group_has_its_power(store):
    found = fit_relation(store, "depth", "reconstruction_rel_error", by=["compute_dtype"])
    powers = {one.group["compute_dtype"]: one for one in found}
    assert powers["fp32"].power == pytest.approx(1.5, abs=0.02)
    assert powers["bf16"].power == pytest.approx(1.0, abs=0.02)
    assert powers["fp32"].low <= 1.5 <= powers["fp32"].high
    assert not powers["fp32"].bend.significant
    assert (powers["fp16"].power, powers["fp16"].zeros) == (None, 10)
    assert powers["fp32"].coefficient == pytest.approx(1e-7, rel=0.1)


def test_trials_that_differ_otherwise_are_told(store):
    (found,) = fit_relation(store, "depth", "reconstruction_rel_error", where="compute_dtype <> 'fp16'")
    assert "compute_dtype" in found.differ


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("depht", "loss_val", "did you mean 'depth'"),
        ("depth", "model", "needs numbers, and the column 'model' holds string"),
        ("depth", "stream_max", "no trial that ended ok has both"),
    ],
)
def test_columns_that_hold_no_relation_are_refused(store, x, y, message):
    with pytest.raises(RelationError, match=message):
        fit_relation(store, x, y)


def test_a_floor_is_found():
    x = np.geomspace(1e15, 1e20, 12)
    law = fit_saturating(x, 1.8 + 900 * x**-0.15)
    assert pytest.approx(1.8, rel=1e-2) == law.E
    assert law.p == pytest.approx(0.15, rel=1e-2)
    assert law.at(1e18) == pytest.approx(1.8 + 900 * 1e18**-0.15, rel=1e-4)
    low, high = law.interval("p")
    assert low <= law.p * 1.001
    assert high >= law.p * 0.999


def test_a_pure_power_has_no_floor():
    x = np.geomspace(1, 100, 10)
    assert pytest.approx(0, abs=1e-3) == fit_saturating(x, 3 * x**-0.5).E


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [3, 2, 1]), ([1, 2, 3, 4], [1, 2, 0, 4])])
def test_too_few_points_and_zeros_are_refused(x, y):
    with pytest.raises(LawError):
        fit_saturating(x, y)
