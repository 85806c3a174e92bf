"""Pruning in a search for several objectives: who goes on from a rung, and what is left of the front."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from study.executors.job import Job, telling
from study.executors.pareto_pruning import better_than_last, crowding, ranks_of
from study.executors.search import make_scheduler
from study.plan.expand import make_plan
from study.spec.load import parse_study
from study.spec.search import Pruning

TWO = {"accuracy_val": "max", "memory_peak_bytes": "min"}


def values_of(*pairs):
    return [{"accuracy_val": a, "memory_peak_bytes": m} for a, m in pairs]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_ranks_are_those_of_peeling_front_after_front_point_by_point(objectives):
    costs = np.random.default_rng(objectives).integers(0, 6, (60, objectives)).astype(float)
    naive, left, rank = {}, set(range(len(costs))), 0
    while left:
        front = {
            i
            for i in left
            if not any((costs[j] <= costs[i]).all() and (costs[j] < costs[i]).any() for j in left)
        }
        naive.update(dict.fromkeys(front, rank))
        left, rank = left - front, rank + 1
    assert ranks_of([tuple(point) for point in costs]) == [naive[i] for i in range(len(costs))]


def test_room_is_the_distance_of_the_neighbours():
    room = crowding([(0.0, 4.0), (1.0, 3.0), (3.0, 1.0), (4.0, 0.0)])
    assert room == [np.inf, 3 / 4 + 3 / 4, 3 / 4 + 3 / 4, np.inf]


def test_a_trial_ranks_by_front_then_by_room_and_by_what_all_have():
    assert better_than_last(values_of((0.9, 100), (0.5, 50), (0.7, 70)), TWO) == 2, "the ends come first"
    assert better_than_last(values_of((0.9, 100), (0.5, 50), (0.95, 40)), TWO) == 0
    assert better_than_last(values_of((0.9, 100), (0.5, 50), (0.4, 60)), TWO) == 2
    assert better_than_last(values_of((0.9, None), (0.5, 50)), TWO) == 1, "accuracy is all that both have"
    assert better_than_last(values_of((0.1, 50), (float("nan"), 50)), TWO) == 1
    assert better_than_last([{}, {}], TWO) == 0
    stored = {"accuracy_val": 0.5, "reconstruction_rel_error": None}
    rebuilt = {"accuracy_val": 0.5, "reconstruction_rel_error": 1e-6}
    assert (
        better_than_last([stored, rebuilt], {"accuracy_val": "max", "reconstruction_rel_error": "min"}) == 1
    )


@pytest.mark.parametrize("method", ["asha", "halving", "median"])
def test_a_frugal_trial_goes_on_though_its_accuracy_is_low(method):
    """Each takes less memory than those before, and is less accurate; one in four is beaten in both."""
    scheduler = make_scheduler(Pruning(method=method), epochs=9, objectives=TWO)
    ends = {}
    for number in range(40):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        dominated = number % 4 == 3
        accuracy, memory = 0.5 - number / 100 - 0.2 * dominated, 1000 - 10 * number + 500 * dominated
        for epoch in range(1, 9):
            report = {"epoch": epoch, "accuracy_val": accuracy, "memory_peak_bytes": memory}
            if scheduler.on_trial_result(None, trial, report) == TrialScheduler.STOP:
                ends[number] = epoch
                break
    assert not [number for number in ends if number % 4 != 3], "each is the most frugal so far"
    assert ends.items() >= dict.fromkeys(range(7, 40, 4), 1).items(), "these are beaten in both"


def test_nothing_is_stopped_at_the_last_epoch_and_brackets_take_turns():
    scheduler = make_scheduler(Pruning(method="hyperband"), epochs=17, objectives=TWO)
    trials = [SimpleNamespace(trial_id=str(number)) for number in range(6)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    rungs = [list(scheduler._bracket_of[trial.trial_id]) for trial in trials]
    assert rungs == [[1, 4, 16], [4, 16], [16]] * 2


def test_an_epoch_is_told_with_the_memory_that_the_trial_takes(tmp_path):
    study = parse_study(
        {
            "name": "small",
            "data": {"name": "digits", "train_examples": 128, "test_examples": 64},
            "model": {"name": "revnet38", "width": 0.25, "depth": 14},
            "train": {"epochs": 2, "batch_size": 64},
        }
    )
    (trial,) = make_plan(study).trials
    job, told = Job(trial=trial, store=str(tmp_path)), []
    result = job.train(**telling(job, lambda row: bool(told.append(row))))
    assert [row["epoch"] for row in told] == [1, 2]
    assert {row["memory_peak_bytes"] for row in told} == {result.trial["memory_peak_bytes"]}
    assert [row["accuracy_val"] for row in told] == [row["accuracy_val"] for row in result.epochs]
