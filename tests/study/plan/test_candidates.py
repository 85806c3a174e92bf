"""Networks to compare: their shapes, and bytes and operations that agree with what a trial would have."""

from __future__ import annotations

import pytest

from analysis.laws.frontier import Candidate
from study.errors import StudyError
from study.plan.candidates import candidates, grown, law_parameters, size_of
from study.plan.cost import trial_cost, trial_operations
from study.plan.points import apply_point
from study.spec.load import parse_study

STUDY = {
    "name": "tiny",
    "data": {"name": "markov:2", "context_length": 32},
    "model": {"name": "revgpt_1m"},
    "train": {"batch_size": 8, "optimizer": "adamw", "learning_rate": 0.004, "steps": 10},
    "memory": {"strategy": "store"},
}


@pytest.fixture(scope="module")
def study():
    return parse_study(STUDY)


def test_shapes_grow_in_like_proportions_and_only_so_far(study):
    size = size_of(study)
    shapes = grown([(2, 0.5)], size, largest=1e6)
    assert (2, 0.5) in shapes
    sizes = [size(shape) for shape in shapes]
    assert sizes == sorted(set(sizes))
    assert max(sizes) <= 1e6
    for depth, width in shapes:  # depth over width stays within a factor of two
        assert 0.5 <= (depth / 2) / (width / 0.5) <= 2


def test_very_many_shapes_are_thinned_and_keep_both_ends():
    shapes = grown([(1, 1.0), (3, 1.0), (5, 1.0)], lambda s: s[0] * s[1] ** 2, largest=1e9)
    assert len(shapes) <= 16
    assert shapes[0] == (1, 1.0)


def test_shapes_that_a_design_cannot_have_are_left_out():
    study = parse_study({"name": "images", "data": {"name": "digits"}, "model": {"name": "revnet38"}})
    shapes = grown([(38, 0.25)], size_of(study), largest=3e5)
    assert (38, 0.25) in shapes
    assert all((depth - 2) % 12 == 0 for depth, _ in shapes)


def test_bytes_and_operations_are_those_of_the_trial(study):
    rows = candidates(study, [(2, 0.25)], strategies=("store", "reverse"), parts=(1, 8))
    found = [Candidate(**row) for row in rows]
    assert [(one.strategy, one.accumulate) for one in found] == [
        ("store", 1), ("store", 8), ("reverse", 1), ("reverse", 8),
    ]  # fmt: skip
    for one in found:
        point = {
            "model.depth": 2, "model.width": 0.25, "memory.strategy": one.strategy,
            "train.accumulate": one.accumulate,
        }  # fmt: skip
        settings = apply_point(study, point)
        assert one.memory_bytes == trial_cost(settings).memory_bytes
        assert one.operations == pytest.approx(trial_operations(settings)[1] / (8 * 32), rel=1e-6)
        assert one.parameters == law_parameters(settings)
    store, reverse = found[0], found[2]
    assert reverse.memory_bytes < store.memory_bytes
    assert reverse.operations > store.operations  # it computes its blocks again
    assert found[1].memory_bytes < store.memory_bytes


def test_strategies_that_no_network_can_use_are_refused(study):
    with pytest.raises(StudyError, match="strategy"):
        list(candidates(study, [(2, 0.25)], strategies=("rewind",)))
