"""What a study will run: its trials in order, without those that are done, and the searches that follow.

A plan trains nothing and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from study.errors import Problem, StudyError
from study.identity import trial_ids
from study.plan.match import match_rows
from study.plan.points import apply_point, grid_points, grid_size, rung_of
from study.plan.searches import PlannedSearch, check_search, objectives_of, search_space
from study.settings.trial import Trial
from study.spec.study import Study

if TYPE_CHECKING:
    from study.plan.cost import Cost
    from study.plan.forecast import Forecast


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trials of a study.

    Attributes:
        trials: To be trained, in the order of the study file.
        already_done: Grid trials whose rows the store has.
        duplicates: Trials that several points of the grid stand for, once for each repetition.
        beyond_budget: Trials left out because ``budget.trials`` is reached.
        searches: The optuna steps, whose trials are not known before they run.
        costs: Cost by trial id, if it was asked for.
        operations: Floating-point operations of a step by trial id, if they were asked for: the model's, and
            those that its memory strategy makes.
        done_by: How many of the trials already done each study of the store trained.
        forecast: Time and fit of `trials`, if it was asked for.
        ladder: The ``constants`` of the study's ladder with their sources, and what they give for each
            network of the grid, as ``rungs``; None for a study without a ladder.
        match: Of a study with a match, what each network of the grid was given and what it is predicted to
            take; None for any other.
    """

    study: str
    trials: tuple[Trial, ...]
    already_done: tuple[Trial, ...] = ()
    duplicates: tuple[Trial, ...] = ()
    beyond_budget: tuple[Trial, ...] = ()
    searches: tuple[PlannedSearch, ...] = ()
    costs: dict[str, Cost] = field(default_factory=dict)
    operations: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    done_by: dict[str, int] = field(default_factory=dict)
    forecast: Forecast | None = None
    ladder: dict[str, list[dict[str, Any]]] | None = None
    match: list[dict[str, Any]] | None = None

    @property
    def total(self) -> int:
        """Trials to train, those of the searches included."""
        return len(self.trials) + sum(search.count for search in self.searches)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        return {
            "study": self.study,
            "to_run": len(self.trials),
            "already_done": len(self.already_done),
            "already_done_by": self.done_by,
            "duplicates": len(self.duplicates),
            "beyond_budget": len(self.beyond_budget),
            "searched": sum(search.count for search in self.searches),
            "searches": [
                {
                    "step": search.step,
                    "sampler": search.sampler,
                    "trials": search.trials,
                    "seeds": list(search.seeds),
                    "objectives": search.objectives,
                    "constraints": search.constraints,
                    "space": search.space,
                }
                for search in self.searches
            ],
            "forecast": self.forecast.to_json() if self.forecast else None,
            "ladder": self.ladder,
            "match": self.match,
            "trials": [self._trial_json(trial) for trial in self.trials],
        }

    def _trial_json(self, trial: Trial) -> dict[str, Any]:
        cost = self.costs.get(trial.trial_id)
        time = self.forecast.times.get(trial.trial_id) if self.forecast else None
        return {
            "trial_id": trial.trial_id,
            "origin": trial.origin,
            "settings": trial.settings.to_dict(),
            "parameters": cost.parameters if cost else None,
            "memory_predicted_bytes": cost.memory_bytes if cost else None,
            "memory_activation_predicted_bytes": cost.activation_bytes if cost else None,
            "coupling_growth_predicted": cost.coupling_growth if cost else None,
            "flops_model": self.operations[trial.trial_id][0] if trial.trial_id in self.operations else None,
            "flops_hardware": self.operations[trial.trial_id][1]
            if trial.trial_id in self.operations
            else None,
            "time_predicted_s": time.seconds if time else None,
            "time_from": time.source if time else None,
        }


LIMIT = 250_000
"""Grid trials of a study, unless the caller allows more: they take about a gigabyte and half a minute."""

Done = Callable[[Collection[str]], Mapping[str, str]]
"""Tells which of some trial ids need no training, each with the study that trained it."""


def make_plan(
    study: Study, done: Container[str] | Done = (), *, predict: bool = False, limit: int = LIMIT
) -> Plan:
    """Expand a study into trials.

    Args:
        study: The study.
        done: Trial ids that need no training, or a function that picks them from those of the study.
        predict: Also build each distinct model on fake tensors and predict its memory, which takes about a
            second a model.
        limit: Grid trials at most. They are counted before one is made.

    Returns:
        The trials that need training, in order, and the searches that follow.

    Raises:
        StudyError: More trials than `limit`; or points that are no trials, each broken rule listed once.
    """
    _check_size(study, limit)
    new: dict[str, Trial] = {}
    duplicates: list[Trial] = []
    searches: list[PlannedSearch] = []
    problems: dict[tuple[str, str], Problem] = {}
    for index, step in enumerate(study.steps):
        seeds = step.seeds or study.seeds
        if step.method == "optuna":
            try:
                check_search(study, index)
            except StudyError as error:
                problems.update({(p.path, p.rule): p for p in error.problems})
                continue
            axes = search_space(study, index).items()
            searches.append(
                PlannedSearch(
                    step=index,
                    sampler=step.origin,
                    trials=step.trials or 0,
                    seeds=seeds,
                    objectives=objectives_of(study, index),
                    constraints=step.limits,
                    space={path: axis.to_dict() for path, axis in axes},
                )
            )
            continue
        for point in grid_points(study, index):
            try:
                first = apply_point(study, point.values, seed=seeds[0], places=point.places)
                points = [first, *(first.with_seed(seed) for seed in seeds[1:])]
            except StudyError as error:
                for problem in error.problems:
                    problems.setdefault((problem.path, problem.rule), problem)
                continue
            for settings, name in zip(points, trial_ids(first, seeds), strict=True):
                trial = Trial(trial_id=name, study=study.name, settings=settings, origin=step.origin)
                if trial.trial_id in new:
                    duplicates.append(trial)
                else:
                    new[trial.trial_id] = trial
    if problems:
        raise StudyError(problems=problems.values())
    by: Mapping[str, str] = {}
    if callable(done):
        done = by = done(new.keys())
    finished = tuple(trial for trial_id, trial in new.items() if trial_id in done)
    trials, budget = tuple(t for trial_id, t in new.items() if trial_id not in done), study.budget.trials
    trials, beyond = trials[:budget], trials[budget:] if budget is not None else ()
    costs = {}
    operations: dict[str, tuple[int, int | None]] = {}
    if predict and trials:
        from study.plan.cost import trial_cost, trial_operations

        costs = {trial.trial_id: trial_cost(trial.settings) for trial in trials}
        operations = {trial.trial_id: trial_operations(trial.settings) for trial in trials}
    return Plan(
        study=study.name,
        trials=tuple(_with_prediction(trial, costs) for trial in trials),
        already_done=finished,
        duplicates=tuple(duplicates),
        beyond_budget=beyond,
        searches=tuple(searches),
        costs=costs,
        operations=operations,
        done_by=dict(Counter(by.values())),
        ladder=_rungs(study, new.values()),
        match=match_rows(study.match, (trial.settings for trial in new.values())) if study.match else None,
    )


def _check_size(study: Study, limit: int) -> None:
    """Count the trials of the grid steps before they are made.

    Raises:
        StudyError: They are more than `limit`.
    """
    sizes = {
        study.place(index): grid_size(study, index) * len(step.seeds or study.seeds)
        for index, step in enumerate(study.steps)
        if step.method == "grid"
    }
    total = sum(sizes.values())
    if total > limit:
        largest = max(sizes, key=lambda place: sizes[place])
        raise StudyError(
            largest,
            value=total,
            rule=f"the grids of a study have at most {limit:,} trials, seeds included",
            remedy="vary fewer settings at once, search with method: optuna, or raise --limit; budget.trials "
            "counts what is trained and not what is planned",
        )


def _rungs(study: Study, trials: Iterable[Trial]) -> dict[str, list[dict[str, Any]]] | None:
    if study.ladder is None:
        return None
    networks = {(t.settings.model, t.settings.precision, t.settings.data): t.settings for t in trials}
    rungs: dict[tuple[Any, ...], dict[str, Any]] = {}
    for settings in networks.values():
        named = {name: getattr(settings.model, name) for name in ("name", "depth", "width")}
        row = {"model": named.pop("name"), **named, **asdict(rung_of(study.ladder, settings))}
        rungs.setdefault(tuple(row.values()), row)
    rows = sorted(rungs.values(), key=lambda row: row["parameters"])
    return {"constants": study.ladder.constants, "rungs": rows}


def _with_prediction(trial: Trial, costs: Mapping[str, Cost]) -> Trial:
    cost = costs.get(trial.trial_id)
    return replace(trial, memory_predicted_bytes=cost.memory_bytes) if cost else trial
