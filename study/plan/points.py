"""From a study to the settings of its trials: expand a grid into points, apply a point to the study.

A point maps dotted paths to values. Every error names the place in the study file that the value came from,
such as ``space.model.depth.grid[2]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.code import is_path, use
from study.errors import Problem, StudyError, nearest
from study.identity import resolve, source_of_data
from study.plan.concurrency import check_scaling
from study.plan.match import matched
from study.settings.trial import TrialSettings
from study.spec.axes import Axis
from study.spec.fields import PATHS, SECTIONS, is_setting, with_value
from study.spec.ladder import Ladder, Rung, rung
from study.spec.match import Match
from study.spec.messages import problems_of
from study.spec.study import Study, keys_beside
from study.tasks.check import check_task


@dataclass(frozen=True, kw_only=True)
class Point:
    """Values by dotted path, and where in the study file each one stands."""

    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def grid_points(study: Study, step: int = 0) -> Iterator[Point]:
    """Every combination of a grid step's values, one sub-space after another; one empty point if none."""
    parts = study.spaces(step)
    if not parts:
        yield Point()
    for place, space in parts.items():
        yield from product_of(place, space)


def grid_size(study: Study, step: int = 0) -> int:
    """How many points `grid_points` has. None is made."""
    parts = study.spaces(step).values()
    return sum(math.prod(len(axis.values or ()) for axis in space.values()) for space in parts) or 1


def apply_point(
    study: Study, values: Mapping[str, Any], *, seed: int = 0, places: Mapping[str, str] | None = None
) -> TrialSettings:
    """The settings of one trial: the study's, with the point's values, every default resolved.

    What the study's ``match`` and ``ladder`` have follow from the size of the network is in them.

    Args:
        study: What is fixed.
        values: Dotted path to value.
        seed: Of weights, data order and dropout.
        places: Where each value stands in the study file, for errors.

    Raises:
        StudyError: Values that break a rule, alone or together; all of them are listed.
    """
    unknown = [path for path in values if not is_setting(path)]
    if unknown:
        rule, remedy = "must be the dotted path of a setting", nearest(unknown[0], PATHS)
        raise StudyError(unknown[0], value=values[unknown[0]], rule=rule, remedy=remedy)
    by_section: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, key = path.partition(".")
        by_section.setdefault(section, {})[key] = value
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        changes = by_section.get(name, {})
        try:
            sections[name] = _section(name, getattr(study, name), changes)
        except ValidationError as error:
            problems += problems_of(error, keys=keys_beside, prefix=name)
    if problems:
        raise _located(StudyError(problems=problems), places)
    unresolved = TrialSettings(**sections, seed=seed, code=study.code)
    try:
        rooted = _rooted(unresolved)
        if study.match is not None:
            rooted = _matched(study, study.match, rooted, values)
        return check(_on_ladder(study.ladder, resolve(rooted), values))
    except StudyError as error:
        raise _located(error, places) from None


def _matched(study: Study, match: Match, settings: TrialSettings, values: Mapping[str, Any]) -> TrialSettings:
    """The settings with the value of one of them that gives the trial the size which the study asks for."""
    if match.by in values:
        raise StudyError(
            match.by,
            value=values[match.by],
            rule="follows from match, and cannot vary as well",
            remedy="take it out of the space, or match by another setting",
        )
    if study.ladder is not None and match.by.removeprefix("train.") in study.ladder.derive:
        raise StudyError(
            "match.by",
            value=match.by,
            rule="follows from the ladder, and cannot follow from match as well",
            remedy="match by model.width, or take it out of ladder.derive",
        )
    return matched(
        match, settings, lambda found: _on_ladder(study.ladder, resolve(found), values), key=study.ladder
    )


def _on_ladder(ladder: Ladder | None, settings: TrialSettings, values: Mapping[str, Any]) -> TrialSettings:
    """The settings with batch, learning rate and epochs as the ladder derives them from the network."""
    if ladder is None:
        return settings
    taken = [name for name in ladder.derive if f"train.{name}" in values]
    if taken:
        raise StudyError(
            f"train.{taken[0]}",
            value=values[f"train.{taken[0]}"],
            rule="follows from the ladder, and cannot vary as well",
            remedy=f"take it out of the space, or {taken[0]} out of ladder.derive",
        )
    for name in ("steps", "tokens"):
        if "epochs" in ladder.derive and getattr(settings.train, name) is not None:
            raise StudyError(
                f"train.{name}",
                value=getattr(settings.train, name),
                rule="takes the place of the epochs that follow from the ladder",
                remedy="take it out, or epochs out of ladder.derive",
            )
    found = asdict(rung_of(ladder, settings))
    train = replace(settings.train, **{name: found[name] for name in ladder.derive})
    return replace(settings, train=train)


def rung_of(ladder: Ladder, settings: TrialSettings) -> Rung:
    """What a ladder gives for the network and the data of a trial.

    Raises:
        DataError: The data set is missing: the classes are part of the network, the images of the epochs.
    """
    from study.plan.cost import count_parameters
    from study.tasks.registry import task_of

    return rung(
        ladder, parameters=count_parameters(settings), examples=task_of(settings).training_examples(settings)
    )


def _section(name: str, fixed: Any, changes: Mapping[str, Any]) -> Any:
    """One section of the settings; large grids ask for equal ones over and over, so they are kept.

    The types belong to the key: 1 and True are equal and hash alike, but only one of them is a number.
    """
    key = tuple((path, type(value), value) for path, value in changes.items())
    try:
        hash(key)
    except TypeError:
        return _validated.__wrapped__(name, fixed, key)
    return _validated(name, fixed, key)


@lru_cache(maxsize=65_536)
def _validated(name: str, fixed: Any, changes: tuple[tuple[str, type, Any], ...]) -> Any:
    values = dict(vars(fixed))
    for path, _, value in changes:
        values = with_value(values, path, value)
    return SECTIONS[name].validate_python(values)


def check(settings: TrialSettings) -> TrialSettings:
    """Resolved settings, if they can be trained as they are.

    Raises:
        StudyError: Unknown model, impossible depth, strategy or precision, a batch that workers cannot share,
            or a data set that is missing.
    """
    resolved = resolve(settings)
    check_scaling(resolved)
    check_length(resolved)
    check_task(resolved)
    _check_optimizer(resolved)
    source_of_data(resolved)
    return resolved


def _check_optimizer(settings: TrialSettings) -> None:
    """Make an optimizer that the study brings along once, on a layer without memory.

    Raises:
        StudyError: It cannot be made; or options are given to one that has none.
    """
    train = settings.train
    if not is_path(train.optimizer):
        if train.optimizer_options:
            raise StudyError(
                "train.optimizer_options",
                value=dict(train.optimizer_options),
                rule=f"{train.optimizer} has no options of this kind",
                remedy="take them out; its settings stand in train",
            )
        return
    import torch

    from study.train.optim import make_optimizer

    use(settings.code)
    make_optimizer(torch.nn.Linear(1, 1, device="meta"), train)


def check_length(settings: TrialSettings) -> None:
    """Check that the length of a training is said once.

    Raises:
        StudyError: It is said in steps and in tokens.
    """
    if settings.train.steps is not None and settings.train.tokens is not None:
        raise StudyError(
            "train.tokens",
            value=settings.train.tokens,
            rule="the length of the training is said in steps already",
            remedy="keep one of train.steps and train.tokens",
        )


def product_of(place: str, space: Mapping[str, Axis]) -> Iterable[Point]:
    """Every combination of a space's listed values, the last axis moving fastest."""
    choices = [
        [(path, value, f"{place}.{path}.grid[{i}]") for i, value in enumerate(axis.values or ())]
        for path, axis in space.items()
    ]
    for combination in itertools.product(*choices):
        yield Point(
            values={path: value for path, value, _ in combination},
            places={path: where for path, _, where in combination},
        )


_PATHS = ("parquet:", "folder:", "text:", "tokens:")
"""Kinds of data whose name holds a path."""


def _rooted(settings: TrialSettings) -> TrialSettings:
    """Pin relative folders to today's working directory: workers have another one."""
    name, root = settings.data.name, settings.data.root
    if name.startswith(_PATHS) or settings.data.tokenizer.startswith("file:") or root is not None:
        return replace(
            settings, data=replace(settings.data, root=str(Path(root or ".").expanduser().resolve()))
        )
    return settings


def _located(error: StudyError, places: Mapping[str, str] | None) -> StudyError:
    moved = [
        replace(problem, path=(places or {}).get(problem.path, problem.path)) for problem in error.problems
    ]
    return type(error)(problems=moved, source=error.source)
