"""What an Optuna step may propose: its space, the trials of a point, and the rules that both keep."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from study.errors import Problem, StudyError, nearest
from study.identity import trial_id
from study.plan.points import apply_point, product_of
from study.settings.trial import Trial, TrialSettings
from study.spec.axes import Axis
from study.spec.search import OBJECTIVES
from study.spec.study import Study
from study.tasks.check import metrics_of

ENDS = 32

_MANY = 10_000
"""Combinations of a search space that are checked one by one before the search begins."""


@dataclass(frozen=True, kw_only=True)
class PlannedSearch:
    """An optuna step: it will propose `trials` points, each with every one of `seeds`."""

    step: int
    sampler: str
    trials: int
    seeds: tuple[int, ...]
    objectives: dict[str, str]
    space: dict[str, Any]
    constraints: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Trials at most; repeated proposals are not trained twice."""
        return self.trials * len(self.seeds)


def search_space(study: Study, step: int) -> Mapping[str, Axis]:
    """The one space of an optuna step."""
    return next(iter(study.spaces(step).values()))


def check_search(study: Study, step: int) -> None:
    """Check what a search may propose: every combination of its listed values, with the ends of its ranges.

    Raises:
        StudyError: A combination that is no trial; the rule and its place in the file are given.
    """
    place, space = next(iter(study.spaces(step).items()))
    for path, axis in space.items():
        if study.match is not None and axis.values is None and path.startswith("model."):
            raise StudyError(
                f"{place}.{path}.{axis.kind}",
                value=list(axis.bounds or ()),
                rule=f"{study.match.by} is matched at every point, which a range has no list of",
                remedy="list values to choose from: choice: [...]",
            )
    ends = {path: Axis(grid=axis.values or axis.bounds) for path, axis in space.items()}
    kinds = {path: axis.kind for path, axis in space.items()}
    problems: dict[str, Problem] = {}
    for point in itertools.islice(product_of(place, ends), _MANY):
        try:
            apply_point(study, point.values)
        except StudyError as error:
            for found in error.problems:
                where = f"{place}.{found.path}.{kinds[found.path]}" if found.path in kinds else found.path
                problems.setdefault(where, replace(found, path=where))
    if problems:
        raise StudyError(problems=problems.values())


def objectives_of(study: Study, step: int) -> dict[str, str]:
    """What an optuna step optimizes, each ``max`` or ``min``: what it says, or what the task is judged by.

    Returns:
        A direction by column.

    Raises:
        StudyError: An objective or a limit is no column, and no metric of the task.
    """
    search = study.steps[step]
    axes = search_space(study, step)
    all_metrics, score = metrics_of(
        apply_point(study, {path: (axis.values or axis.bounds or (None,))[0] for path, axis in axes.items()})
    )
    metrics = {m.column(split): m.direction for m in all_metrics for split in ("train", "val")}
    for key in ("objectives", "constraints"):
        for name in getattr(search, key) or ():
            if name not in OBJECTIVES and name not in metrics:
                raise StudyError(
                    f"{study.place(step)}.{key}.{name}",
                    value=name,
                    rule="must be a column, or a metric of the task",
                    remedy=nearest(name, (*metrics, *OBJECTIVES)),
                )
    return search.directions or {score.column("val"): score.direction}


def trials_at(study: Study, search: PlannedSearch, point: Mapping[str, Any]) -> list[Trial]:
    """Return the trials of a point, one per seed.

    Raises:
        StudyError: The point is no legal trial.
    """
    trials = []
    for seed in search.seeds:
        settings = apply_point(study, point, seed=seed)
        trials.append(
            Trial(trial_id=trial_id(settings), study=study.name, settings=settings, origin=search.sampler)
        )
    return trials


def common_settings(study: Study, search: PlannedSearch) -> TrialSettings:
    """Return the settings at the first point of a search, for what all of its points share.

    Raises:
        StudyError: The search varies the resources of its trials, which run side by side and share one size.
    """
    space = search_space(study, search.step)
    for path in space:
        if path.startswith("scaling."):
            raise StudyError(
                path,
                rule="an optuna step cannot vary the resources of its trials",
                remedy="set it in the section scaling, or vary it in a grid step",
            )
    point = {path: (axis.values or axis.bounds or (None,))[0] for path, axis in space.items()}
    return apply_point(study, point, seed=search.seeds[0])


def ends(study: Study, search: PlannedSearch) -> list[Trial]:
    """Return trials at the ends of a search's axes, up to `ENDS`: between them lies what it may propose.

    Combinations of ends that are no trials are left out.
    """
    axes = search_space(study, search.step)
    values = [
        dict.fromkeys((v[0], v[-1])) for v in (axis.values or axis.bounds or () for axis in axes.values())
    ]
    trials = []
    for combination in itertools.islice(itertools.product(*values), ENDS):
        with contextlib.suppress(StudyError):
            trials.append(trials_at(study, search, dict(zip(axes, combination, strict=True)))[0])
    return trials
