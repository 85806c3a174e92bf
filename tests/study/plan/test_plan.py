import json

import pytest

import revmodels
from study.errors import StudyError
from study.plan.cost import trial_cost
from study.plan.expand import make_plan
from study.spec.load import parse_study
from study.train.trial import train_trial

SPACE = {"model.depth": {"grid": [26, 38]}, "memory.strategy": {"grid": ["store", "reverse"]}}


def study(**sections):
    return parse_study({"name": "s", "model": {"width": 0.25}, **sections})


def test_trials_are_in_the_order_of_the_file_with_seeds_innermost():
    plan = make_plan(study(space=SPACE, seeds=[0, 1]))
    found = [(t.settings.model.depth, t.settings.memory.strategy, t.settings.seed) for t in plan.trials]
    assert found == [(d, m, s) for d in (26, 38) for m in ("store", "reverse") for s in (0, 1)]
    assert len({t.trial_id for t in plan.trials}) == plan.total == 8
    assert {(t.study, t.origin) for t in plan.trials} == {("s", "grid")}


def test_equal_points_are_planned_once():
    spaces = [SPACE, {"model.depth": {"grid": [None, 38]}}]
    plan = make_plan(study(space=spaces))
    assert len(plan.trials) == 4
    assert [t.settings.model.depth for t in plan.duplicates] == [38, 38]


def test_done_trials_are_subtracted():
    whole = make_plan(study(space=SPACE))
    done = {whole.trials[1].trial_id, "another"}
    plan = make_plan(study(space=SPACE), done)
    assert [t.trial_id for t in plan.already_done] == [whole.trials[1].trial_id]
    assert [t.trial_id for t in plan.trials] == [t.trial_id for i, t in enumerate(whole.trials) if i != 1]


def test_budget_cuts_the_tail():
    plan = make_plan(study(space=SPACE, budget={"trials": 3}))
    assert (len(plan.trials), len(plan.beyond_budget)) == (3, 1)


def test_searches_are_counts_with_their_spaces():
    search = {
        "method": "optuna",
        "sampler": "nsga2",
        "trials": 5,
        "seeds": [0, 1],
        "space": {"model.width": {"uniform": [0.25, 1.0]}},
        "objectives": {"accuracy_val": "max", "memory_peak_bytes": "min"},
    }
    plan = make_plan(study(space=SPACE, search=[{"method": "grid"}, search]))
    assert len(plan.trials) == 4
    (found,) = plan.searches
    assert (found.step, found.sampler, found.count) == (1, "nsga2", 10)
    assert found.space == {"model.width": {"uniform": [0.25, 1.0]}}
    assert plan.total == 14


def test_json_is_plain():
    plan = make_plan(study(space=SPACE))
    content = json.loads(json.dumps(plan.to_json()))
    assert (content["to_run"], content["already_done"], content["duplicates"]) == (4, 0, 0)
    assert content["trials"][0]["settings"]["model"]["depth"] == 26
    assert content["trials"][0]["parameters"] is None


def test_every_problem_of_every_step_is_reported():
    steps = [
        {"space": {"model.depth": {"grid": [26, 27]}}},
        {"method": "optuna", "trials": 1, "space": {"model.name": {"choice": ["revnet38", "revnet39"]}}},
    ]
    with pytest.raises(StudyError) as caught:
        make_plan(study(search=steps))
    paths = [p.path for p in caught.value.problems]
    assert paths == ["search[0].space.model.depth.grid[1]", "search[1].space.model.name.choice"]


def test_prediction_is_what_the_trial_then_measures():
    spec = study(
        data={"train_examples": 128, "test_examples": 20},
        train={"epochs": 1, "batch_size": 64},
        space={"memory.strategy": {"grid": ["store", "reverse"]}},
    )
    plan = make_plan(spec, predict=True)
    for trial in plan.trials:
        model = revmodels.create_model("revnet38", num_classes=10, in_channels=1, width=0.25)
        assert plan.costs[trial.trial_id].parameters == sum(p.numel() for p in model.parameters())
        row = train_trial(trial).trial
        assert row["outcome"] == "ok", row["error_message"]
        assert (
            row["memory_predicted_bytes"]
            == row["memory_peak_bytes"]
            == trial_cost(trial.settings).memory_bytes
        )
    content = plan.to_json()["trials"]
    assert content[0]["memory_predicted_bytes"] > content[1]["memory_predicted_bytes"]
