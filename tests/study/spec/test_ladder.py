"""The ladder: batch, learning rate and epochs from the size of a network, each constant with its source."""

from __future__ import annotations

import pytest

from study.errors import StudyError
from study.plan.expand import make_plan
from study.spec.ladder import SOURCES, Ladder, rung
from study.spec.load import load_study, parse_study


def test_the_rule_at_the_base_is_the_base_and_scales_by_its_exponents():
    base = rung(Ladder(), parameters=464_890, examples=45_000)
    assert (base.batch_size, base.learning_rate, base.epochs) == (100, 0.1, 178)
    larger = rung(Ladder(), parameters=8 * 464_890, examples=45_000)
    assert (larger.batch_size, larger.learning_rate, larger.epochs) == (400, 0.05, 1422)
    assert larger.steps == 1422 * (45_000 // 400)
    tiny = rung(Ladder(base_images=10), parameters=10, examples=45_000)
    assert (tiny.batch_size, tiny.epochs) == (4, 1)


def test_each_constant_has_a_source():
    assert set(SOURCES) == set(Ladder.model_fields) - {"derive"}
    shown = {row["constant"]: row for row in Ladder(base_batch_size=32).constants}
    assert (shown["base_batch_size"]["value"], shown["base_batch_size"]["source"]) == (32, "the study file")
    assert "arXiv" in shown["base_parameters"]["source"]


def test_trials_are_as_the_rule_says_and_the_plan_shows_it():
    study = load_study("rungs")
    plan = make_plan(study)
    rungs = {(row["depth"], row["width"]): row for row in plan.ladder["rungs"]}
    assert len(rungs) == len(plan.trials) == 8
    for trial in plan.trials:
        found = rungs[trial.settings.model.depth, trial.settings.model.width]
        for name in ("batch_size", "learning_rate", "epochs"):
            assert getattr(trial.settings.train, name) == found[name]
    sizes = [row["parameters"] for row in plan.ladder["rungs"]]
    assert sizes == sorted(sizes)
    batches = [row["batch_size"] for row in plan.ladder["rungs"]]
    assert batches == sorted(batches)
    assert plan.to_json()["ladder"] == plan.ladder
    assert parse_study(study.to_dict()) == study


def test_what_is_not_derived_stays_and_what_is_cannot_vary(make_study):
    (trial,) = make_plan(make_study(ladder={"derive": ["learning_rate"]})).trials
    assert (trial.settings.train.batch_size, trial.settings.train.epochs) == (64, 2)
    assert trial.settings.train.learning_rate != 0.05
    study = make_study(ladder={}, space={"train.batch_size": {"grid": [32, 64]}})
    with pytest.raises(StudyError) as caught:
        make_plan(study)
    problem = caught.value.problems[0]
    assert problem.path == "space.train.batch_size.grid[0]"
    assert "take it out of the space, or batch_size out of ladder.derive" in str(problem)


def test_mistakes_are_told():
    with pytest.raises(StudyError) as caught:
        parse_study({"name": "s", "ladder": {"base_parameter": 1, "derive": ["batch"]}})
    told = str(caught.value)
    assert "did you mean 'base_parameters'?" in told
    assert "ladder.derive[0]" in told
