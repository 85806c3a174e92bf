"""Trials that are predicted not to fit the memory: a row, no training, and another try where they fit."""

from __future__ import annotations

import pytest

from study.executors.job import Job
from study.plan import machine
from study.plan.expand import make_plan
from study.run import plan_run
from study.spec.load import parse_study
from study.store.reader import read_rows
from study.train import trial as training


def study_of(**sections):
    return parse_study(
        {
            "name": "small",
            "data": {"name": "digits", "train_examples": 128, "test_examples": 64},
            "model": {"name": "revnet38", "width": 0.25, "depth": 14},
            "train": {"epochs": 1, "batch_size": 64},
            **sections,
        }
    )


@pytest.fixture
def memory(monkeypatch):
    """Sets what this machine has."""

    def has(size: int) -> None:
        monkeypatch.setattr(machine, "memory_of_machine", lambda: size)

    return has


def test_an_unfit_trial_is_a_row_without_training_and_is_trained_where_it_fits(tmp_path, memory, monkeypatch):
    study = study_of()
    plan = make_plan(study, predict=True)
    (trial,) = plan.trials
    needed = plan.costs[trial.trial_id].memory_bytes
    job = Job(trial=trial, store=str(tmp_path))
    memory(needed - 1)
    with monkeypatch.context() as untrained:
        untrained.setattr(training, "_run", lambda *args: pytest.fail("it was started"))
        row = job.finish(job.train()).trial
    assert (row["outcome"], row["error_class"], row["epochs_done"]) == ("unfit", "UnfitError", 0)
    assert row["memory_predicted_bytes"] == needed
    assert f"{needed:,} bytes" in row["error_message"]
    assert f"{needed - 1:,}" in row["error_message"]

    assert plan_run(study, tmp_path).trials == ()
    assert len(plan_run(study, tmp_path).already_done) == 1
    assert len(plan_run(study, tmp_path, here=False).trials) == 1, "another machine judges for itself"
    assert len(plan_run(study_of(budget={"unfit": "try"}), tmp_path).trials) == 1

    memory(needed)
    (again,) = plan_run(study, tmp_path).trials
    assert Job(trial=again, store=str(tmp_path), attempt=1).train().trial["outcome"] == "ok"


def test_an_unfit_trial_is_tried_if_the_study_says_so(tmp_path, memory):
    memory(1)
    (trial,) = make_plan(study_of()).trials
    assert Job(trial=trial, store=str(tmp_path), may_not_fit=True).train().trial["outcome"] == "ok"


def test_what_is_no_exact_prediction_keeps_nothing_from_training(memory):
    memory(1)
    (trial,) = make_plan(study_of(memory={"strategy": "compile"})).trials
    assert Job(trial=trial, store="unused").fits
    assert read_rows("no-store-here") == {}
