"""Optuna through Ray Tune, with every proposal checked against the store first.

It asks and tells an Optuna study through Tune's `Searcher`. `ray.tune.search.optuna.OptunaSearch` does less:

- It tells a missing or non-finite objective to Optuna as a value. `tell` then only warns, the Optuna trial
  stays RUNNING for ever, and the sampler goes on counting it as pending. Here such a trial is told as failed.
- It trains what it is given. Samplers repeat themselves, above all in small discrete spaces: here a proposal
  that is done is answered from its row, one that is being trained shares the result, and neither counts.
- It knows one trial per proposal. Here a proposal has one per seed, and its value is their mean.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from study.executors.job import SCORE, Job
from study.executors.job_queue import JobQueue
from study.executors.journal import Journal, attributes_of
from study.executors.pareto_pruning import ParetoPruning
from study.outcomes import PRUNED, UNFIT
from study.spec.axes import Axis
from study.spec.search import Pruning

Row = Mapping[str, Any]
Point = dict[str, Any]

BRACKETS = 3
REDUCTION = 4
"""One in so many trials goes on from a rung; the next rung is so many times as far."""
TOO_LARGE = "memory of the machine"
"""The constraint that a trial broke which was predicted not to fit."""

REPEATS = 20
"""After so many repetitions in a row, a finite space is searched among its untried points."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point that Optuna proposed and the trial ids, one per seed, that answer it.

    `fresh` says that one of them had to be trained; otherwise the proposal was a repetition.
    """

    trial: optuna.Trial
    trial_ids: tuple[str, ...]
    fresh: bool


class StoreSearch(JobQueue):
    """Proposes trials with an Optuna sampler, and never one whose row is in the store.

    Args:
        space: The axis of each dotted path.
        objectives: ``max`` or ``min`` for each column of the row to optimize, in order.
        sampler: One of `study.spec.search.SAMPLERS`.
        seed: Of the sampler.
        make_jobs: Turns a point of the space into its trials, one per seed.
        find_row: The row of a trial id, or None if it is not done.
        limit: How many new points to propose.
        known: Finished points to start from, each with the rows of its seeds.
        constraints: ``max`` and ``min`` of columns of the row: a point that breaks one is told as infeasible.
        journal: Where ended trials are written for others to look at.
    """

    def __init__(
        self,
        space: Mapping[str, Axis],
        *,
        objectives: Mapping[str, str],
        sampler: str,
        seed: int,
        make_jobs: Callable[[Point], Sequence[Job]],
        find_row: Callable[[str], Row | None],
        limit: int,
        known: Iterable[tuple[Point, Sequence[Row]]] = (),
        constraints: Mapping[str, Mapping[str, float]] | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = {path: distribution(axis) for path, axis in space.items()}
        self._objectives = tuple(objectives)
        self._make_jobs = make_jobs
        self._find_row = find_row
        self._limit = limit
        self._untried = _Untried(space, seed)
        self._rows: dict[str, Row] = {}
        self._open: list[Proposal] = []
        self._new = 0
        self._constraints = constraints or {}
        self._journal = journal
        self.study = optuna.create_study(
            directions=["maximize" if d == "max" else "minimize" for d in objectives.values()],
            sampler=make_sampler(sampler, seed),
        )
        self._seeded = (sampler, seed)
        for point, rows in known:
            values, state = self._verdict(rows)
            ends = {row["trial_id"]: row["outcome"] for row in rows}
            self._rows.update({row["trial_id"]: row for row in rows})
            kept = None if journal is None else journal.find(ends)
            trial = create_trial(
                state=state,
                values=values,
                params=point,
                distributions=self._space,
                constraints=self._told_violations(rows, values) or None,
                intermediate_values=kept.intermediate_values if kept else None,
                system_attrs=attributes_of(kept) if kept else None,
            )
            self.study.add_trial(trial)
            self._untried.discard(point)
            if journal is not None and kept is None:
                journal.add(trial, ends)

    def propose(self) -> Job | None:
        """The next trial to train, or None once there is nothing new to propose."""
        while not self._waiting:
            if self._new >= self._limit or not self._propose():
                return None
        return self._waiting.popleft()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the curve of the objective, which samplers and dashboards read; pruning is the scheduler's."""
        if trial_id in self._handed:
            self._keep(self._handed[trial_id], result)

    def ended(self, job: Job, result: dict[str, Any] | None) -> None:
        """Tell Optuna the values of every proposal that this trial completes."""
        self._keep(job, result or {})
        lost = {"outcome": "failed"}
        self._rows[job.trial.trial_id] = lost if result is None else {"outcome": "pruned", **result}
        self._settle()

    def _keep(self, job: Job, result: Mapping[str, Any]) -> None:
        value, epoch = result.get(self._objectives[0]), result.get("epoch")
        if len(self._objectives) > 1 or not epoch or value is None or not math.isfinite(value):
            return
        for proposal in self._open:
            if proposal.trial_ids == (job.trial.trial_id,):
                proposal.trial.report(value, epoch)

    def _propose(self) -> bool:
        """Ask until a proposal has something to train; False if the space has nothing new."""
        for attempt in itertools.count():
            number = self._seed_anew()
            if attempt >= REPEATS and self._untried.finite:
                point = self._untried.pick(number)
                if point is None:
                    return False
                self.study.enqueue_trial(point)
            trial = self.study.ask(fixed_distributions=self._space)
            self._untried.discard(trial.params)
            jobs = self._make_jobs(trial.params)
            fresh = [job for job in jobs if self._is_new(job.trial.trial_id)]
            trial_ids = tuple(job.trial.trial_id for job in jobs)
            self._open.append(Proposal(trial=trial, trial_ids=trial_ids, fresh=bool(fresh)))
            if fresh:
                self._waiting.extend(fresh)
                self._new += 1
                return True
            self._settle()
        raise AssertionError("unreachable")

    def _seed_anew(self) -> int:
        """Seed the sampler by how many proposals there were, which a search that goes on knows as well.

        A sampler that draws without looking at results stays: it repeats what it drew before, and these
        proposals are answered from their rows.

        Returns:
            That number.
        """
        number = len(self.study.get_trials(deepcopy=False))
        sampler, seed = self._seeded
        if sampler not in ("qmc", "random"):
            drawn = random.Random(f"{seed} {number}").randrange(2**31)
            self.study.sampler = make_sampler(sampler, drawn)
        return number

    def _is_new(self, trial_id: str) -> bool:
        """Neither trained, nor being trained or about to be."""
        if trial_id in self._rows or any(trial_id in proposal.trial_ids for proposal in self._open):
            return False
        row = self._find_row(trial_id)
        if row is not None:
            self._rows[trial_id] = row
        return row is None

    def _settle(self) -> None:
        """Tell Optuna what is complete."""
        waiting = []
        for proposal in self._open:
            if all(trial_id in self._rows for trial_id in proposal.trial_ids):
                rows = [self._rows[trial_id] for trial_id in proposal.trial_ids]
                values, state = self._verdict(rows)
                for name, violation in self._told_violations(rows, values).items():
                    proposal.trial.set_constraint(name, violation)
                told = self.study.tell(proposal.trial, values, state=state)
                if self._journal is not None:
                    ends = {i: str(self._rows[i]["outcome"]) for i in proposal.trial_ids}
                    if proposal.fresh or self._journal.find(ends) is None:
                        self._journal.add(told, ends)
            else:
                waiting.append(proposal)
        self._open = waiting

    def _verdict(self, rows: Sequence[Row]) -> tuple[list[float] | None, TrialState]:
        """The mean of each objective over seeds; a failure unless every seed has every value."""
        values = [objective_values(row, self._objectives) for row in rows]
        complete = [value for value in values if value is not None]
        if len(complete) == len(values):
            return [fmean(column) for column in zip(*complete, strict=True)], TrialState.COMPLETE
        ends = {row.get("outcome") for row in rows}
        # Samplers pass over failures. One that does not fit is to teach them where not to look.
        pruned = UNFIT in ends or (len(self._objectives) == 1 and PRUNED in ends)
        return None, TrialState.PRUNED if pruned else TrialState.FAIL

    def _told_violations(self, rows: Sequence[Row], values: list[float] | None) -> dict[str, float]:
        """The violations to tell: of a point that has values, or that was too large for the machine."""
        if values is None:
            return {TOO_LARGE: 1.0} if any(row.get("outcome") == UNFIT for row in rows) else {}
        return self._violations(rows)

    def _violations(self, rows: Sequence[Row]) -> dict[str, float]:
        """How far each constraint is broken by the worst seed, as a part of its limit; at most 0 if kept."""
        found = {}
        for name, limits in self._constraints.items():
            values = [row.get(name) for row in rows]
            for way, limit in limits.items():
                sign, scale = (1 if way == "max" else -1), abs(limit) or 1.0
                # What a row does not have, it does not keep.
                off = [math.inf if v is None or math.isnan(v) else sign * (v - limit) / scale for v in values]
                found[f"{name} {way} {limit:g}"] = min(max(off), 1e9)
        return found


class _Untried:
    """The points of a finite space that nobody proposed yet."""

    def __init__(self, space: Mapping[str, Axis], seed: int) -> None:
        values = [axis.values for axis in space.values()]
        self._seed = seed
        self._names = tuple(space)
        self._points: list[tuple[Any, ...]] = []
        self.finite = all(v is not None for v in values) and math.prod(len(v or ()) for v in values) <= 10_000
        if self.finite:
            self._points = list(dict.fromkeys(itertools.product(*(v or () for v in values))))

    def discard(self, point: Point) -> None:
        """Take a point out."""
        key = tuple(point[name] for name in self._names)
        if key in self._points:
            self._points.remove(key)

    def pick(self, number: int) -> Point | None:
        """One of the points at random, as proposal `number`; None if there is none left."""
        if not self._points:
            return None
        chosen = random.Random(f"{self._seed} {number}").choice(self._points)
        return dict(zip(self._names, chosen, strict=True))


def objective_values(row: Row, objectives: Iterable[str]) -> list[float] | None:
    """Return the row's value for each objective, or None if the trial does not count.

    A network that rebuilds nothing has no reconstruction error: its null counts as zero. Any other missing or
    non-finite value, and any outcome but ``ok``, makes the trial a failure to the sampler.
    """
    if row.get("outcome") != "ok":
        return None
    values = []
    for name in objectives:
        value = row.get(name)
        if value is None and name == "reconstruction_rel_error":
            value = 0.0
        if value is None or not math.isfinite(value):
            return None
        values.append(float(value))
    return values


def distribution(axis: Axis) -> BaseDistribution:
    """The Optuna distribution of an axis."""
    if axis.bounds is None:
        return CategoricalDistribution(axis.values or ())
    low, high = axis.bounds
    if axis.kind == "int":
        return IntDistribution(low, high, step=axis.step or 1)
    return FloatDistribution(low, high, log=axis.kind == "loguniform")


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler of a study file's name, seeded."""
    samplers: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
        "tpe": optuna.samplers.TPESampler,
        "gp": optuna.samplers.GPSampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "qmc": optuna.samplers.QMCSampler,
        "random": optuna.samplers.RandomSampler,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers[name](seed=seed)


def make_scheduler(
    pruning: Pruning | None, *, epochs: int, objectives: Mapping[str, str] | None = None
) -> TrialScheduler | None:
    """The Tune scheduler that stops unpromising trials, or None for no pruning.

    Args:
        pruning: What the study file says.
        epochs: Epochs of a trial.
        objectives: Of the search. Several are judged together, by non-dominated rank; one by the score that
            `study.executors.job.numbers_of` makes of it.

    Returns:
        The scheduler, new.
    """
    if pruning is None:
        return None
    if objectives is not None and len(objectives) > 1:
        return _pareto_scheduler(pruning, epochs, objectives)
    common: dict[str, Any] = {"time_attr": "epoch", "metric": SCORE, "mode": "max"}
    grace = max(1, pruning.warmup_epochs)
    if pruning.method != "median":
        return AsyncHyperBandScheduler(
            **common,
            reduction_factor=REDUCTION,
            grace_period=min(grace, epochs),
            max_t=epochs,
            brackets=BRACKETS if pruning.method == "hyperband" else 1,
            stop_last_trials=False,
        )
    return MedianStoppingRule(
        **common,
        grace_period=grace,
        min_samples_required=pruning.startup_trials,
        # No pauses: one would end the trial's training. The rule counts from minus infinity.
        min_time_slice=math.inf,  # type: ignore[arg-type]
    )


def _pareto_scheduler(pruning: Pruning, epochs: int, objectives: Mapping[str, str]) -> ParetoPruning:
    """The rungs of each method, as it has them for one objective."""
    grace = max(1, pruning.warmup_epochs)
    if pruning.method == "median":
        every = [range(grace, epochs)]
        return ParetoPruning(objectives, brackets=every, keep=0.5, startup=pruning.startup_trials)
    brackets = [
        [rung for power in range(epochs) if (rung := grace * REDUCTION ** (power + first)) < epochs]
        for first in range(BRACKETS if pruning.method == "hyperband" else 1)
    ]
    return ParetoPruning(objectives, brackets=brackets, keep=1 / REDUCTION)
