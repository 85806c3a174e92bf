"""Rules of a study file that concern its spaces as a whole, checked once its parts are known to be sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from study.errors import Problem
from study.spec.fields import SECTIONS, with_value
from study.spec.messages import problems_of

if TYPE_CHECKING:
    from study.spec.axes import Axis
    from study.spec.study import Study


def space_problems(study: Study) -> list[Problem]:
    """Broken rules of all spaces: values that their settings refuse, and axes that their step cannot use."""
    problems = []
    for place, space in study.all_spaces().items():
        problems += _value_problems(study, place, space)
    for step in range(len(study.steps)):
        problems += _step_problems(study, step)
    return problems


def _value_problems(study: Study, place: str, space: Mapping[str, Axis]) -> list[Problem]:
    """Values that the setting of their path refuses, each under its own place."""
    problems = []
    for path, axis in space.items():
        section, _, key = path.partition(".")
        fixed = vars(getattr(study, section))
        listed = axis.content(axis.kind) or ()
        for index, value in enumerate(listed):
            try:
                SECTIONS[section].validate_python(with_value(fixed, key, value))
            except ValidationError as error:
                for found in problems_of(error, keys=lambda _: ()):
                    where = f"{place}.{path}.{axis.kind}[{index}]"
                    problems.append(Problem(path=where, value=value, rule=found.rule, remedy=found.remedy))
    return problems


def _step_problems(study: Study, step: int) -> list[Problem]:
    spaces: dict[str, Any] = dict(study.spaces(step))
    if study.steps[step].method == "grid":
        return [
            Problem(
                path=f"{place}.{path}.{axis.kind}",
                value=list(axis.content(axis.kind)),
                rule="a grid step takes lists of values",
                remedy="write grid: [...], or give each search step a space of its own",
            )
            for place, space in spaces.items()
            for path, axis in space.items()
            if axis.kind != "grid"
        ]
    if len(spaces) == 1 and not next(iter(spaces)).endswith("]"):
        return []
    return [
        Problem(
            path=f"{study.place(step)}.space",
            value=f"{len(spaces)} spaces" if spaces else None,
            rule="an optuna step searches one space, a mapping of paths",
            remedy="give the step a space of its own",
        )
    ]
