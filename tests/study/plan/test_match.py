import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import StudyError
from study.identity import trial_id
from study.plan.cost import count_parameters, trial_cost
from study.plan.expand import make_plan
from study.plan.match import Axis, Sizes, _neighbors, match_rows
from study.plan.points import apply_point
from study.settings.trial import TrialSettings
from study.spec.load import parse_study
from study.spec.match import Match

ASKED = 8.0e6
IMAGES = {"name": "synthetic:3x8x8x10"}
STRATEGIES = {"memory.strategy": {"grid": ["store", "reverse"]}}


def study(**sections):
    base = {"name": "s", "data": IMAGES, "model": {"depth": 26, "width": 0.5}, "train": {"batch_size": 64}}
    return parse_study({**base, "space": STRATEGIES, **sections})


@pytest.fixture(scope="module")
def plan():
    return make_plan(study(match={"memory_peak_bytes": ASKED}, seeds=[0, 1]), predict=True)


def test_each_strategy_gets_the_width_whose_predicted_bytes_are_those_asked_for(plan):
    widths = {t.settings.memory.strategy: t.settings.model.width for t in plan.trials}
    assert widths["store"] < 0.8 * widths["reverse"]
    for trial in plan.trials:
        assert trial_cost(trial.settings).memory_bytes == pytest.approx(ASKED, rel=0.02)
        assert trial.memory_predicted_bytes == trial_cost(trial.settings).memory_bytes


def test_the_solved_width_is_a_setting_like_any_other(plan):
    assert len({t.trial_id for t in plan.trials}) == 4
    for trial in plan.trials:
        by_hand = study(model={"depth": 26, "width": trial.settings.model.width})
        point = {"memory.strategy": trial.settings.memory.strategy}
        assert trial_id(apply_point(by_hand, point, seed=trial.settings.seed)) == trial.trial_id


def test_a_plan_says_for_each_network_what_was_asked_and_what_is_predicted(plan):
    assert [row["strategy"] for row in plan.match] == STRATEGIES["memory.strategy"]["grid"]
    for row in plan.match:
        assert (row["by"], row["quantity"], row["asked"]) == ("model.width", "memory_peak_bytes", ASKED)
        assert row["off"] == row["predicted"] / ASKED - 1 and row["found"] == row["width"]
    assert plan.to_json()["match"] == plan.match


def test_parameters_are_matched_over_models_of_different_design():
    space = [{"model.name": {"grid": ["revnet38"]}}, {"model.name": {"grid": ["resnet32"]}}]
    matched = make_plan(study(match={"parameters": 2.0e5, "within": 0.05}, space=space))
    found = [count_parameters(trial.settings) for trial in matched.trials]
    assert found == pytest.approx([2.0e5, 2.0e5], rel=0.05) and len(found) == 2


def test_where_no_depth_comes_near_enough_the_depths_on_both_sides_are_named():
    match = {"memory_peak_bytes": ASKED, "by": "model.depth", "within": 0.001}
    with pytest.raises(StudyError) as refused:
        make_plan(study(match=match, model={"width": 0.5}, space={"memory.strategy": {"grid": ["store"]}}))
    (problem,) = refused.value.problems
    assert problem.path == "match.memory_peak_bytes"
    named = [int(depth) for depth in re.findall(r"(\d+) gives", problem.rule)]
    assert len(named) == 2 and named[1] - named[0] == 12  # a basic RevNet of three stages grows by 12 layers
    sizes = [
        trial_cost(apply_point(study(model={"width": 0.5, "depth": d}), {"memory.strategy": "store"}))
        for d in named
    ]
    assert sizes[0].memory_bytes < ASKED < sizes[1].memory_bytes


def test_a_size_below_the_smallest_network_is_refused():
    with pytest.raises(StudyError, match="none smaller"):
        make_plan(study(match={"parameters": 10.0}, space={"memory.strategy": {"grid": ["store"]}}))


@pytest.mark.parametrize(
    ("match", "space", "said"),
    [
        ({}, None, "exactly one of"),
        ({"memory_peak_bytes": 1.0e6, "parameters": 1.0e6}, None, "exactly one of"),
        ({"parameters": 1.0e6, "by": "train.batch_size"}, None, "batch changes no network"),
        ({"parameters": 1.0e6, "by": "model.widht"}, None, "model.width"),
        ({"parameters": 1.0e6, "by": "model.options.heads"}, None, "has no options"),
        ({"parameters": 1.0e6}, {"model.width": {"grid": [0.5]}}, "cannot vary as well"),
        ({"memory_peak_bytes": 1.0e6}, {"memory.strategy": {"grid": ["compile"]}}, "not predicted exactly"),
    ],
)
def test_a_match_that_means_nothing_is_refused(match, space, said):
    with pytest.raises(StudyError, match=said):
        make_plan(study(match=match, **({"space": space} if space else {})))


def test_a_search_lists_the_networks_that_are_to_be_matched():
    search = {"method": "optuna", "trials": 2, "space": {"model.width": {"uniform": [0.4, 0.6]}}}
    match = {"parameters": 1.0e5, "by": "model.depth", "within": 0.5}
    with pytest.raises(StudyError, match="list values to choose from"):
        make_plan(study(match=match, search=search))


def test_a_batch_from_the_ladder_cannot_be_matched_as_well():
    match = {"memory_peak_bytes": ASKED, "by": "train.batch_size"}
    with pytest.raises(StudyError, match="follows from the ladder"):
        make_plan(study(match=match, ladder={}))


def test_a_ladder_follows_the_width_that_was_found():
    ladder = {"base_parameters": 20_000, "base_batch_size": 8, "derive": ["batch_size"]}
    space = {"memory.strategy": {"grid": ["reverse"]}}
    (trial,) = make_plan(study(match={"parameters": 1.0e5}, ladder=ladder, space=space)).trials
    assert trial.settings.train.batch_size == 4 * round(
        8 * (count_parameters(trial.settings) / 2e4) ** (2 / 3) / 4
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_neighbors_are_those_of_a_search_through_all_values_with_few_predictions(data):
    power = data.draw(st.floats(0.3, 2.5))
    scale = data.draw(st.floats(0.01, 100))
    plateau = data.draw(st.integers(1, 40))
    start = data.draw(st.integers(1, 3000))
    answer = data.draw(st.integers(1, 2000))

    def size(value):
        return 5.0 + scale * (value // plateau * plateau) ** power

    asked = size(answer * plateau) * data.draw(st.floats(0.9, 1.0))
    asked = max(asked, 1.0)
    axis = Axis(value=lambda n: n, start=start, same=lambda n: n // plateau, tidy=lambda n: n)
    sizes = Sizes(axis=axis, predict=size)
    match = Match(memory_peak_bytes=asked)
    below, above = _neighbors(match, sizes, TrialSettings())
    naive = next(n for n in range(1, 10**6) if size(n) >= asked)
    assert (below, above) == (naive - 1, naive)
    assert len(sizes.known) <= 2 * math.log2(max(start, answer * plateau, 2)) + 8


def test_rows_of_equal_networks_are_one():
    stored = apply_point(study(), {"memory.strategy": "store"})
    assert len(match_rows(Match(parameters=1.0e5), [stored, stored.with_seed(1)])) == 1
