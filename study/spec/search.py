"""The steps of a search: how each looks for points, what it optimizes, and what it stops early."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from analysis import schema
from study.errors import nearest
from study.settings.setting import BrokenRule, Setting
from study.spec.axes import Seeds, Space, one_or_many
from study.spec.fields import Section
from study.spec.messages import MANY, ONE

SAMPLERS = ("tpe", "gp", "nsga2", "qmc", "random")

METHODS = ("grid", "optuna")

DIRECTIONS = ("max", "min")

PRUNERS = ("median", "asha", "hyperband", "halving")

_RESULTS = ("accuracy_", "loss_", "bits_per_byte_", "memory_", "reconstruction_", "gradient_")

_NOT_OBJECTIVES = (
    "accuracy_test",
    "loss_test",
    "bits_per_byte_test",
    "memory_source",
    "memory_predicted_bytes",
)

OBJECTIVES = (
    *(c.name for c in schema.TRIALS.columns if c.name.startswith(_RESULTS) and c.name not in _NOT_OBJECTIVES),
    *("step_time_s", "examples_per_s", "train_s", "wall_s", "parameters"),
)
"""Columns that a search may optimize. The test set is not among them: it steers nothing."""


def _known_early(objective: str) -> bool:
    """Whether a column has a value before the trial has ended."""
    known = objective in schema.EPOCHS.types or objective.startswith(("memory_", "parameters"))
    return known or objective not in schema.TRIALS.types  # a metric of one's own


_METRIC = re.compile(r"[a-z][a-z0-9_]*_(train|val)")
"""What the metric of a task of one's own is called; whether the task has it is seen when it is imported."""


def _check_objective(name: str) -> None:
    if name not in OBJECTIVES and not _METRIC.fullmatch(name):
        raise BrokenRule("must be one of the choices", nearest(name, OBJECTIVES))


Objective = Annotated[str, Setting(check=_check_objective)]

Direction = Annotated[str, Setting(choices=DIRECTIONS)]


class Pruning(Section):
    """Stopping of unpromising trials, judged after each epoch by the search's objective.

    In a search for several objectives they are judged by all that are known by then: trials at the same epoch
    are sorted into fronts, those of a front by the room around them, and the first of them go on.

    ``asha`` is asynchronous successive halving (``halving`` is the same), ``hyperband`` the same in brackets
    of several first rungs, ``median`` stops what is below the median of the others. A stopped trial is
    recorded as ``pruned``, and is on no front.
    """

    method: Annotated[str, Setting("How unpromising trials are told.", choices=PRUNERS)] = "median"
    startup_trials: Annotated[
        int, Setting("Trials that are never stopped by the median, the first ones.", "trials", at_least=0)
    ] = 4
    warmup_epochs: Annotated[
        int, Setting("Epochs of every trial in which it is not stopped.", "epochs", at_least=0)
    ] = 1


class Limit(Section):
    """What a column of a trial's row may be at most, or at least."""

    max: Annotated[float | None, Setting("The most that the column may be.")] = None
    min: Annotated[float | None, Setting("The least that the column may be.")] = None

    @model_validator(mode="after")
    def _some(self) -> Limit:
        if self.max is None and self.min is None:
            remedy = "for example {max: 5.0e+8}"
            raise PydanticCustomError("limit", "needs max, min or both", {"remedy": remedy})
        return self


class SearchStep(Section):
    """One step of the search: the whole grid of a space, or a number of trials that Optuna proposes."""

    method: Annotated[
        str, Setting("The whole grid of the space, or points that Optuna proposes.", choices=METHODS)
    ] = "grid"
    space: Space | None = Field(default=None, description="The step's own space; without it, the study's.")
    seeds: Seeds | None = Field(default=None, description="The step's own seeds; without them, the study's.")
    sampler: Annotated[str | None, Setting("What proposes points; without it, tpe.", choices=SAMPLERS)] = None
    sampler_seed: Annotated[int, Setting("The seed of the sampler.", at_least=0)] = 0
    trials: Annotated[int | None, Setting("Points to propose.", "points", at_least=1)] = None
    objectives: Annotated[dict[Objective, Direction], Field(min_length=1)] | None = Field(
        default=None,
        description="Columns to optimize, each max or min; without them, what the task is judged by, such as "
        "accuracy_val: max.",
    )
    constraints: Annotated[dict[Objective, Limit], Field(min_length=1)] | None = Field(
        default=None, description="Limits of columns; a point that breaks one is not feasible."
    )
    pruning: Pruning | None = Field(
        default=None, description="When unpromising trials are stopped; without it, none is."
    )

    @model_validator(mode="after")
    def _fields_of_the_method(self) -> SearchStep:
        if self.method == "grid":
            for key in ("sampler", "trials", "objectives", "constraints", "pruning"):
                if getattr(self, key) is not None:
                    remedy = f"remove {key}, or write method: optuna"
                    raise PydanticCustomError("step", f"a grid step has no {key}", {"remedy": remedy})
        elif self.trials is None:
            remedy = "for example trials: 20"
            raise PydanticCustomError("step", "an optuna step needs a number of trials", {"remedy": remedy})
        elif (
            self.pruning is not None
            and self.objectives
            and not any(_known_early(name) for name in self.directions)
        ):
            names = ", ".join(self.directions)
            rule = f"pruning needs an objective that is known during training, and {names} is not"
            remedy = "add one such as accuracy_val: max, or remove pruning"
            raise PydanticCustomError("step", rule, {"remedy": remedy})
        return self

    @property
    def directions(self) -> dict[str, str]:
        """Objectives with their directions; none if the file gives none, and the task's score counts."""
        return dict(self.objectives or {})

    @property
    def limits(self) -> dict[str, dict[str, float]]:
        """``max`` and ``min`` of each constrained column."""
        return {name: limit.model_dump(exclude_none=True) for name, limit in (self.constraints or {}).items()}

    @property
    def origin(self) -> str:
        """What proposes this step's trials: ``grid`` or the sampler's name."""
        return "grid" if self.method == "grid" else (self.sampler or "tpe")


SearchSteps = Annotated[tuple[SearchStep, ...], Field(min_length=1, strict=False)]

Search = Annotated[
    Annotated[SearchStep, Tag(ONE)] | Annotated[SearchSteps, Tag(MANY)], Discriminator(one_or_many)
]
