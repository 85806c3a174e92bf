"""What a plan knows of a store, how it predicts time, and what it says does not fit."""

from __future__ import annotations

import pytest

from analysis.store.compact import compact
from study.errors import StoreError
from study.identity import trial_id, trial_ids
from study.plan.cost import trial_operations
from study.plan.durations import Clock, calibrate, work_per_example
from study.plan.expand import make_plan
from study.plan.forecast import forecast
from study.plan.machine import Machine, misfits
from study.plan.predict import forecast_plan
from study.run import plan_run
from study.spec.load import parse_study
from study.store.reader import History
from study.store.writer import write_result
from study.train.trial import train_trial

SMALL = {
    "name": "small",
    "data": {"name": "digits", "train_examples": 128, "test_examples": 64},
    "model": {"name": "revnet38", "width": 0.25, "depth": 14},
    "train": {"epochs": 1, "batch_size": 64},
}


def study(**sections):
    return parse_study({**SMALL, **sections})


@pytest.fixture
def past(tmp_path):
    """A store in which another study has trained the trial of `SMALL`, with its row."""
    from dataclasses import replace

    (trial,) = make_plan(study(name="earlier")).trials
    result = train_trial(trial, device="cpu")
    assert result.trial["outcome"] == "ok"
    result = replace(result, trial={**result.trial, "cpu_threads": 1})
    write_result(tmp_path, result)
    return tmp_path, result.trial


@pytest.mark.parametrize("merged", [False, True])
def test_a_trial_of_another_study_counts_as_done_and_names_it(past, merged):
    store, row = past
    if merged:  # a second file, so that there is something to merge
        write_result(store, train_trial(make_plan(study(name="earlier", seeds=[9])).trials[0], device="cpu"))
        assert compact(store)
    plan = plan_run(study(seeds=[0, 1]), store)
    assert [t.trial_id for t in plan.already_done] == [row["trial_id"]]
    assert len(plan.trials) == 1
    assert plan.to_json()["already_done_by"] == {"earlier": 1}


def test_a_torn_file_is_not_a_done_trial_and_a_file_is_no_store(past, tmp_path):
    store, row = past
    (file,) = store.glob("study=*/trials/*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    assert History(store).done({row["trial_id"]}) == {}
    with pytest.raises(StoreError, match="is a file"):
        History(file)
    assert History(tmp_path / "none").done({"x"}) == {}


def test_time_is_that_of_the_same_model_or_scaled_by_work_or_unknown(past):
    store, row = past
    clock = Clock(History(store).timed())
    (same,) = make_plan(study(train={"epochs": 3, "batch_size": 64}, seeds=[5])).trials
    found = clock.time(same.settings)
    assert (found.source, found.trials) == ("same", 1)
    assert found.seconds == pytest.approx(3 * row["wall_s"])

    (deeper,) = make_plan(study(model={**SMALL["model"], "depth": 26})).trials
    found = clock.time(deeper.settings)
    ratio = work_per_example(deeper.settings) / work_per_example(same.settings)
    assert found.source == "scaled"
    assert ratio > 1
    assert found.seconds == pytest.approx(row["wall_s"] * ratio)

    (other,) = make_plan(study(precision={"compute": "bf16"})).trials
    assert (clock.time(other.settings).source, clock.time(other.settings).seconds) == ("unknown", None)


def test_rebuilding_is_four_forward_passes_and_storing_three():
    plan = make_plan(study(space={"memory.strategy": {"grid": ["store", "reverse"]}}))
    stored, rebuilt = (work_per_example(trial.settings) for trial in plan.trials)
    assert rebuilt * 3 == pytest.approx(stored * 4)


def test_what_keeps_its_activations_elsewhere_computes_nothing_again():
    grid = ["store", "offload", "quantized", "reverse"]
    plan = make_plan(study(space={"memory.strategy": {"grid": grid}}))
    stored, moved, rounded, rebuilt = (work_per_example(trial.settings) for trial in plan.trials)
    assert stored == moved == rounded < rebuilt


@pytest.mark.parametrize("model", ["gpt_100k", "revgpt_100k"])
def test_the_work_of_a_language_model_is_that_of_a_counted_step_attention_with_it(model):
    data, train = {"name": "markov:1", "context_length": 64}, {"steps": 1, "batch_size": 8}
    sections = {"data": data, "model": {"name": model}, "train": train, "memory": {"strategy": "store"}}
    (trial,) = make_plan(study(**sections)).trials
    operations, _ = trial_operations(trial.settings)
    assert work_per_example(trial.settings) == operations / 8


def test_a_calibration_times_the_cheapest_model_and_scales():
    plan = make_plan(study(space={"model.depth": {"grid": [26, 14]}}))
    calibration = calibrate(plan.trials)
    assert "depth 14" in calibration.model
    times = [Clock([], calibrated=calibration).time(trial.settings) for trial in plan.trials]
    assert {time.source for time in times} == {"calibrated"}
    assert times[1].seconds == pytest.approx(128 * calibration.example_s)
    assert times[0].seconds > times[1].seconds


def test_the_whole_is_as_many_side_by_side_as_fit(past):
    store, row = past
    sections = {"scaling": {"cpus_per_worker": 1}, "seeds": [1, 2, 3, 4]}
    trials, clock = make_plan(study(**sections)).trials, Clock(History(store).timed())
    found = forecast(trials, {}, clock, Machine(cpus=2))
    assert found.total_s == pytest.approx(2 * row["wall_s"])
    assert found.worker_hours == pytest.approx(4 * row["wall_s"] / 3600)
    assert found.gpu_hours == 0
    assert forecast(trials, {}, Clock([]), Machine(cpus=2)).total_s is None


def test_what_does_not_fit_is_named_with_a_remedy():
    plan = make_plan(study(space={"memory.strategy": {"grid": ["store", "reverse"]}}), predict=True)
    stored, rebuilt = (plan.costs[trial.trial_id].memory_bytes for trial in plan.trials)
    assert misfits(plan.trials, plan.costs, Machine(cpus=1, memory_bytes=stored)) == ()
    (found,) = misfits(plan.trials, plan.costs, Machine(cpus=1, memory_bytes=rebuilt))
    assert found.trial_ids == (plan.trials[0].trial_id,)
    assert (found.needed_bytes, found.available_bytes) == (stored, rebuilt)
    assert "memory.strategy: reverse" in found.remedy
    several = misfits(plan.trials, plan.costs, Machine(cpus=4, memory_bytes=2 * stored))
    assert all("raise scaling.cpus_per_worker" in misfit.remedy for misfit in several)
    assert several[0].needed_bytes == 4 * stored


def test_ids_of_several_seeds_are_those_of_each():
    plan = make_plan(study(seeds=[0, 7, 123]))
    assert [trial_id(trial.settings) for trial in plan.trials] == [t.trial_id for t in plan.trials]
    assert trial_ids(plan.trials[0].settings, [7]) == [plan.trials[1].trial_id]


def test_a_search_is_forecast_by_the_ends_of_its_axes(past):
    store, row = past
    searched = study(
        train={"epochs": 3, "batch_size": 64},
        search={
            "method": "optuna",
            "trials": 5,
            "seeds": [0, 1],
            "space": {
                "train.learning_rate": {"loguniform": [0.01, 0.1]},
                "model.depth": {"choice": [14, 26]},
            },
        },
    )
    plan = forecast_plan(plan_run(searched, store), searched, store, memory_bytes=1)
    (found,) = plan.forecast.searches
    assert (found.step, found.trials) == (0, 10)
    # Depth 14 has been timed; depth 26 is scaled by its work.
    assert found.time_s > 3 * row["wall_s"]
    assert plan.forecast.worker_hours == pytest.approx(10 * found.time_s / 3600)
    assert plan.forecast.total_s is not None
    assert found.memory_bytes > row["memory_peak_bytes"]
    assert {misfit.model.split()[2] for misfit in plan.forecast.misfits} == {"14", "26"}
