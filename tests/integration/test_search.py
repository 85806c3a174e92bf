"""Optuna behind Ray Tune: what is told, what is trained, and what is never trained twice."""

from __future__ import annotations

import math
from functools import partial

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from study.errors import StudyError
from study.executors.job import SCORE, WORST, Job, numbers_of, report_of
from study.executors.journal import Journal
from study.executors.search import StoreSearch, make_scheduler, objective_values
from study.plan.search_progress import known_points, point_of, remaining
from study.plan.searches import trials_at
from study.run import plan_run, run_study
from study.spec.axes import Axis
from study.spec.search import SAMPLERS
from study.store.reader import read_rows
from study.store.rows import settings_columns

ONE = {"accuracy_val": "max"}
OBJECTIVES = {"accuracy_val": "max", "memory_peak_bytes": "min", "reconstruction_rel_error": "min"}


def search_study(make_study, space, *, trials=6, seeds=(0,), **step):
    return make_study(
        search={
            "method": "optuna",
            "sampler": "tpe",
            "trials": trials,
            "space": space,
            "objectives": OBJECTIVES,
            "seeds": list(seeds),
            **step,
        }
    )


def searcher_of(study, *, limit, rows=None, objectives=OBJECTIVES, **more) -> StoreSearch:
    """The searcher of a study's first step, with rows in place of a store."""
    (search,) = plan_run(study, "no-store-here").searches
    return StoreSearch(
        {path: Axis(**axis) for path, axis in search.space.items()},
        objectives=objectives,
        sampler=search.sampler,
        seed=0,
        make_jobs=lambda point: [Job(trial=t, store="unused") for t in trials_at(study, search, point)],
        find_row=(rows or {}).get,
        limit=limit,
        **more,
    )


def good(value: float) -> dict:
    return {
        "outcome": "ok",
        "accuracy_val": value,
        "memory_peak_bytes": 1000,
        "reconstruction_rel_error": 1e-7,
    }


LEARNING_RATES = {"train.learning_rate": {"loguniform": [0.01, 0.2]}}


@pytest.mark.parametrize(
    "result",
    [
        {**good(0.5), "accuracy_val": float("nan")},
        {**good(0.5), "accuracy_val": None},
        {**good(0.5), "outcome": "diverged"},
        {"epoch": 1, "accuracy_val": 0.4},
        None,
    ],
    ids=["nan", "null", "diverged", "stopped", "no result"],
)
def test_a_trial_without_finite_objectives_is_told_as_failed(make_study, result):
    searcher = searcher_of(search_study(make_study, LEARNING_RATES), limit=2)
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_complete("a", result)
    searcher.on_trial_complete("b", good(0.9))
    assert [t.state for t in searcher.study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_lost_process_is_tried_again_and_told_as_failed_only_when_it_is_given_up(make_study):
    searcher = searcher_of(search_study(make_study, LEARNING_RATES), limit=1)
    first = searcher.suggest("a")["job"]
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("wait") is None
    searcher.retry("a")
    again = searcher.suggest("b")["job"]
    assert (again.trial, again.attempt) == (first.trial, first.attempt + 1)
    assert [t.state for t in searcher.study.trials] == [TrialState.RUNNING]
    searcher.on_trial_complete("b", error=True)
    searcher.give_up("b")
    assert [t.state for t in searcher.study.trials] == [TrialState.FAIL]
    assert searcher.suggest("c") == Searcher.FINISHED


def test_a_stored_network_counts_as_rebuilt_without_error():
    row = {**good(0.5), "reconstruction_rel_error": None}
    assert objective_values(row, OBJECTIVES) == [0.5, 1000.0, 0.0]
    assert objective_values({**row, "memory_peak_bytes": None}, OBJECTIVES) is None


def test_a_finite_space_is_exhausted_and_no_point_is_trained_twice(make_study):
    study = search_study(make_study, {"model.width": {"choice": [0.25, 0.5]}}, trials=50)
    searcher = searcher_of(study, limit=50)
    jobs = [searcher.suggest("a")["job"], searcher.suggest("b")["job"]]
    assert len({job.trial.trial_id for job in jobs}) == 2
    assert searcher.suggest("c") is None
    running = [t for t in searcher.study.trials if t.state == TrialState.RUNNING]
    assert len(running) >= 2
    searcher.on_trial_complete("a", good(0.1))
    searcher.on_trial_complete("b", good(0.2))
    assert searcher.suggest("d") == Searcher.FINISHED
    assert {t.state for t in searcher.study.trials} == {TrialState.COMPLETE}
    by_width = {(t.params["model.width"], t.values[0]) for t in searcher.study.trials}
    assert len(by_width) == 2


def test_a_point_of_the_store_is_answered_from_its_row(make_study):
    study = search_study(make_study, {"model.width": {"choice": [0.25, 0.5]}})
    (search,) = plan_run(study, "no-store-here").searches
    (done,) = trials_at(study, search, {"model.width": 0.25})
    searcher = searcher_of(study, limit=5, rows={done.trial_id: good(0.75)})
    assert searcher.suggest("a")["job"].trial.settings.model.width == 0.5
    assert searcher.suggest("b") is None
    answered = [t for t in searcher.study.trials if t.params["model.width"] == 0.25]
    assert answered
    assert all(t.values == [0.75, 1000.0, 1e-7] for t in answered)


def test_a_proposal_is_told_the_mean_of_its_seeds_once_all_are_done(make_study):
    searcher = searcher_of(search_study(make_study, LEARNING_RATES, seeds=(0, 1)), limit=1)
    jobs = [searcher.suggest("a")["job"], searcher.suggest("b")["job"]]
    assert [job.trial.settings.seed for job in jobs] == [0, 1]
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", good(0.2))
    assert [t.state for t in searcher.study.trials] == [TrialState.RUNNING]
    searcher.on_trial_complete("b", good(0.4))
    assert searcher.study.trials[0].values == pytest.approx([0.3, 1000.0, 1e-7])


def test_a_point_is_recognized_in_a_row(make_study):
    space = {"train.learning_rate": {"loguniform": [0.01, 0.2]}, "model.width": {"choice": [0.25, 1]}}
    study = search_study(make_study, space)
    (search,) = plan_run(study, "no-store-here").searches
    axes = {path: Axis(**axis) for path, axis in space.items()}
    point = {"train.learning_rate": 0.0123, "model.width": 1}
    (trial,) = trials_at(study, search, point)
    row = {**settings_columns(trial, 0), "outcome": "ok", "started_at": None}
    assert point_of(row, axes) == point
    assert known_points(study, search, {trial.trial_id: row}) == [(point, [row])]
    assert remaining(study, search, {trial.trial_id: row}).trials == search.trials - 1
    elsewhere = search_study(make_study, {**space, "train.learning_rate": {"loguniform": [0.1, 0.2]}})
    assert known_points(elsewhere, search, {trial.trial_id: row}) == []


def test_a_search_runs_on_ray_with_several_objectives_and_is_done_afterwards(ray_cluster, make_study, store):
    space = {
        # The second learning rate diverges, so the sampler has a failure to live with.
        "train.learning_rate": {"choice": [0.05, 1e30]},
        "memory.strategy": {"choice": ["store", "reverse"]},
    }
    study = search_study(make_study, space, trials=4)
    summary = run_study(study, store)
    assert summary.outcomes == {"ok": 2, "diverged": 2}
    rows = read_rows(store)
    assert {row["origin"] for row in rows.values()} == {"tpe"}
    assert len(rows) == 4
    again = run_study(study, store)
    assert (again.trained, again.already_done, again.left) == (0, 4, 0)
    more = search_study(make_study, {**space, "train.learning_rate": {"choice": [0.05, 0.1, 1e30]}}, trials=5)
    assert plan_run(more, store).searches[0].trials == 1


@pytest.mark.parametrize("method", ["optuna", "grid"])
def test_what_will_not_fit_is_recorded_and_never_started(ray_cluster, make_study, store, method):
    # The wide network would take terabytes.
    space = {"model.width": {"choice": [0.25, 8192]}}
    if method == "grid":
        study = make_study(space={"model.width": {"grid": [0.25, 8192]}})
    else:
        study = search_study(make_study, space, trials=2)
    summary = run_study(study, store)
    assert summary.outcomes == {"ok": 1, "unfit": 1}
    assert summary.exit_code == 1
    (row,) = [row for row in read_rows(store).values() if row["outcome"] == "unfit"]
    assert (row["width"], row["epochs_done"], row["error_class"]) == (8192, 0, "UnfitError")
    again = run_study(study, store)
    assert (again.trained, again.already_done, again.left) == (0, 2, 0)


@pytest.mark.parametrize("objectives", [ONE, OBJECTIVES], ids=["one", "several"])
def test_the_sampler_learns_where_trials_do_not_fit(make_study, objectives):
    study = search_study(make_study, {"train.learning_rate": {"uniform": [0.001, 1.0]}}, trials=60)
    first = searcher_of(study, limit=60, objectives=objectives)
    rates, known = [], []
    for number in range(60):
        rate = first.suggest(str(number))["job"].trial.settings.train.learning_rate
        row = good(1 - abs(rate - 0.75)) if rate > 0.5 else {"epoch": 0, "outcome": "unfit"}
        first.on_trial_complete(str(number), row)
        rates.append(rate)
        known.append(({"train.learning_rate": rate}, [{"trial_id": str(number), **row}]))
    assert sum(rate <= 0.5 for rate in rates[30:]) < 10, "the samples lie where trials fit"
    unfit = [t for t in first.study.trials if t.state != TrialState.COMPLETE]
    assert {(t.state, t.constraints["memory of the machine"]) for t in unfit} == {(TrialState.PRUNED, 1.0)}
    assert all(t.params["train.learning_rate"] > 0.5 for t in first.study.best_trials)
    again = searcher_of(study, limit=1, objectives=objectives, known=known)
    for told, then in zip(again.study.trials, first.study.trials, strict=True):
        assert (told.state, told.constraints) == (then.state, then.constraints)


LIMITED = {"memory_peak_bytes": {"max": 1000.0}}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("objectives", [{"accuracy_val": "max"}, OBJECTIVES], ids=["one", "several"])
def test_every_sampler_lives_with_failures_limits_and_what_the_store_knows(
    make_study, tmp_path, sampler, objectives
):
    space = {
        "train.learning_rate": {"loguniform": [0.01, 0.2]},
        "train.momentum": {"uniform": [0.0, 0.99]},
        "model.width": {"choice": [0.25, 0.5]},
        "train.batch_size": {"int": [16, 64], "step": 16},
    }
    study = search_study(
        make_study, space, sampler=sampler, objectives=objectives, constraints=LIMITED, trials=25
    )
    journal = journal_of(study, tmp_path)
    first = searcher_of(study, limit=12, objectives=objectives, constraints=LIMITED, journal=journal)
    rows = {}
    for number in range(12):
        job = first.suggest(str(number))["job"]
        trial, settings = job.trial, job.trial.settings
        row = {**good(settings.train.momentum), "memory_peak_bytes": int(4000 * settings.model.width)}
        if number % 4 == 3:
            row = {**row, "outcome": "diverged", "accuracy_val": float("nan")}
        first.on_trial_complete(str(number), row)
        rows[trial.trial_id] = {**settings_columns(trial, 0), "started_at": f"{number:02}", **row}
    assert first.suggest("end") == Searcher.FINISHED
    (search,) = plan_run(study, "no-store-here").searches
    known = known_points(study, search, rows)
    assert len(known) == 12
    second = searcher_of(
        study,
        limit=3,
        objectives=objectives,
        constraints=LIMITED,
        known=known,
        journal=journal_of(study, tmp_path),
    )
    assert [t.state for t in second.study.trials] == [t.state for t in first.study.trials]
    for number in range(3):
        second.suggest(str(number))
        second.on_trial_complete(str(number), good(0.5))
    trials = loaded(tmp_path).trials
    assert len(trials) == 15, "what the journal has is not added again"
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.number < 12:
            broken = trial.constraints["memory_peak_bytes max 1000"]
            assert broken == pytest.approx(trial.params["model.width"] / 0.25 - 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("objectives", [ONE, OBJECTIVES], ids=["one", "several"])
@pytest.mark.parametrize("ended", [4, 13])
def test_a_search_that_is_killed_and_goes_on_proposes_what_an_undisturbed_one_would(
    make_study, tmp_path, sampler, objectives, ended
):
    space = {"train.learning_rate": {"loguniform": [0.01, 0.2]}, "train.momentum": {"uniform": [0.0, 0.99]}}
    study = search_study(make_study, space, sampler=sampler, objectives=objectives, trials=17)
    (search,) = plan_run(study, "no-store-here").searches

    def proposals(searcher, rows, count):
        found = []
        for number in range(len(rows), len(rows) + count):
            trial = searcher.suggest(str(number))["job"].trial
            row = {**good(trial.settings.train.momentum), "memory_peak_bytes": 1000 + number}
            row["outcome"] = {3: "diverged", 7: "pruned"}.get(number, "ok")
            searcher.on_trial_result(str(number), {**row, "epoch": 1})
            searcher.on_trial_complete(str(number), row)
            rows[trial.trial_id] = {**settings_columns(trial, 0), "started_at": f"{number:02}", **row}
            found.append(trial.trial_id)
        return found

    undisturbed = proposals(searcher_of(study, limit=17, objectives=objectives), {}, 17)
    rows = {}
    begun = searcher_of(study, limit=17, objectives=objectives, journal=journal_of(study, tmp_path))
    assert proposals(begun, rows, ended) == undisturbed[:ended]
    begun.suggest("in training")  # and its driver is killed
    resumed = searcher_of(
        study,
        limit=17 - ended,
        objectives=objectives,
        known=known_points(study, search, rows),
        journal=journal_of(study, tmp_path),
    )
    assert proposals(resumed, rows, 17 - ended) == undisturbed[ended:]


def test_an_interrupted_trial_of_a_search_is_proposed_again(make_study):
    study = search_study(make_study, LEARNING_RATES, seeds=(0, 1))
    (search,) = plan_run(study, "no-store-here").searches
    rows = {
        trial.trial_id: {**settings_columns(trial, 0), "outcome": "failed", "started_at": None}
        for trial in trials_at(study, search, {"train.learning_rate": 0.05})
    }
    assert remaining(study, search, rows).trials == search.trials - 1
    next(iter(rows.values()))["error_class"] = "KeyboardInterrupt"
    assert remaining(study, search, rows).trials == search.trials


def test_a_journal_that_a_killed_run_left_half_written_goes_on(make_study, tmp_path):
    study = search_study(make_study, LEARNING_RATES, objectives={"accuracy_val": "max"})
    searcher = searcher_of(study, limit=2, objectives=ONE, journal=journal_of(study, tmp_path))
    searcher.suggest("a")
    searcher.on_trial_result("a", {"epoch": 1, "accuracy_val": 0.25})
    searcher.on_trial_complete("a", good(0.5))
    searcher.suggest("b")  # it runs, and its driver is killed: the file knows nothing of it
    file = tmp_path / "study=small" / "optuna.journal"
    with file.open("a") as stream:
        stream.write('{"op_code": 4, "wor')
    again = searcher_of(study, limit=1, objectives=ONE, journal=journal_of(study, tmp_path))
    again.suggest("c")
    again.on_trial_complete("c", good(0.75))
    trials = loaded(tmp_path).trials
    assert [(t.state, t.value) for t in trials] == [(TrialState.COMPLETE, 0.5), (TrialState.COMPLETE, 0.75)]
    assert trials[0].intermediate_values == {1: 0.25}
    assert trials[0].datetime_start <= trials[0].datetime_complete


def test_a_file_that_is_no_journal_is_set_aside(make_study, tmp_path):
    file = tmp_path / "study=small" / "optuna.journal"
    file.parent.mkdir()
    file.write_text("mine\nand mine\n")
    study = search_study(make_study, LEARNING_RATES, objectives={"accuracy_val": "max"})
    searcher = searcher_of(study, limit=1, objectives=ONE, journal=journal_of(study, tmp_path))
    searcher.suggest("a")
    searcher.on_trial_complete("a", good(0.5))
    assert len(loaded(tmp_path).trials) == 1
    (aside,) = file.parent.glob(".optuna.journal.*")
    assert aside.read_text() == "mine\nand mine\n"


@pytest.mark.parametrize("method", ["asha", "hyperband", "halving", "median"])
def test_what_pruning_stops_is_marked_and_on_no_front(make_study, method):
    study = search_study(make_study, LEARNING_RATES, pruning={"method": method})
    scheduler = make_scheduler(study.steps[0].pruning, epochs=9)
    assert scheduler.metric == "score"
    searcher = searcher_of(study, limit=1)
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"epoch": 3, **good(0.9), "outcome": "pruned"})
    assert searcher.study.trials[0].state == TrialState.FAIL
    assert searcher.study.best_trials == []


def journal_of(study, store) -> Journal:
    (search,) = plan_run(study, "no-store-here").searches
    return Journal(store, study.name, search.step, space=search.space, objectives=search.objectives)


def loaded(store) -> optuna.Study:
    """The one study of the store's journal, as Optuna's own tools read it."""
    file = str(store / "study=small" / "optuna.journal")
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(file)))


def test_pruning_by_one_objective_judges_by_that_objective():
    row = {"epochs_done": 3, "accuracy_val": 0.9, "loss_val": 0.4, "outcome": "ok", "data": "digits"}
    assert numbers_of(row, ("accuracy_val", "max"))[SCORE] == 0.9
    assert numbers_of(row, ("loss_val", "min"))[SCORE] == -0.4
    for broken in (None, math.nan, math.inf):
        assert numbers_of({**row, "loss_val": broken}, ("loss_val", "min"))[SCORE] == WORST
    assert report_of(row, ("loss_val", "min"))["outcome"] == "ok"


def test_pruning_needs_an_objective_that_is_known_during_training(make_study):
    with pytest.raises(StudyError, match="known during training, and step_time_s is not"):
        search_study(
            make_study, LEARNING_RATES, objectives={"step_time_s": "min"}, pruning={"method": "asha"}
        )


def test_a_search_for_several_objectives_stops_trials_early_on_ray(ray_cluster, make_study, store):
    study = search_study(
        partial(make_study, data={"name": "digits"}, train={"epochs": 4, "batch_size": 32}),
        {"train.learning_rate": {"loguniform": [1e-6, 0.1]}},
        trials=8,
        sampler="random",
        objectives={"accuracy_val": "max", "memory_peak_bytes": "min"},
        pruning={"method": "median", "startup_trials": 2},
    )
    assert run_study(study, store).exit_code == 0
    rows = list(read_rows(store).values())
    ends = {outcome: [row for row in rows if row["outcome"] == outcome] for outcome in ("ok", "pruned")}
    assert len(rows) == 8 and ends["ok"] and ends["pruned"]
    assert all(row["epochs_done"] < study.train.epochs for row in ends["pruned"])
    assert max(row["accuracy_val"] for row in ends["ok"]) > max(r["accuracy_val"] for r in ends["pruned"])
