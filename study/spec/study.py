"""The study file: `Study`, its search steps and spaces, and `load_study`, which reads and validates it.

Every broken rule is reported at once. Rules that need a model or a data set (legal depths, files that
exist) are checked by `study.plan.points` when points become trials, so that this module imports no torch.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationError, field_serializer, model_validator
from pydantic_core import PydanticCustomError

from analysis import schema
from study.errors import Problem, StudyError, nearest
from study.spec.axes import KINDS, Axis, Seeds, Space, one_or_many
from study.spec.fields import (
    SECTIONS,
    Budget,
    Data,
    Memory,
    Model,
    Natural,
    OneOf,
    Positive,
    Precision,
    Probe,
    Scaling,
    Section,
    Train,
)
from study.spec.ladder import Ladder
from study.spec.messages import MANY, ONE, problems_of
from study.spec.rules import space_problems
from study.spec.yaml_file import read_yaml

__all__ = ["Axis", "Pruning", "SearchStep", "Study", "load_study", "parse_study"]

SAMPLERS = ("tpe", "gp", "nsga2", "qmc", "random")
METHODS = ("grid", "optuna")
DIRECTIONS = ("max", "min")
PRUNERS = ("median", "asha", "hyperband", "halving")

_RESULTS = ("accuracy_", "loss_", "memory_", "reconstruction_", "gradient_")
_NOT_OBJECTIVES = ("accuracy_test", "loss_test", "memory_source", "memory_predicted_bytes")
OBJECTIVES = (
    *(c.name for c in schema.TRIALS.columns if c.name.startswith(_RESULTS) and c.name not in _NOT_OBJECTIVES),
    *("step_time_s", "examples_per_s", "train_s", "wall_s", "parameters"),
)
"""Columns that a search may optimize. The test set is not among them: it steers nothing."""


Method = Annotated[str, OneOf(METHODS)]
Sampler = Annotated[str, OneOf(SAMPLERS)]
Objective = Annotated[str, OneOf(OBJECTIVES)]
Direction = Annotated[str, OneOf(DIRECTIONS)]
Pruner = Annotated[str, OneOf(PRUNERS)]


class Pruning(Section):
    """Stopping of unpromising trials, judged by their validation accuracy after each epoch.

    ``asha`` is asynchronous successive halving (``halving`` is the same), ``hyperband`` the same in brackets
    of several first rungs, ``median`` stops what is below the median of the others. A stopped trial is
    recorded as ``pruned``, and is on no front.
    """

    method: Pruner = "median"
    startup_trials: Natural = 4
    warmup_epochs: Natural = 1


class Limit(Section):
    """What a column of a trial's row may be at most, or at least."""

    max: float | None = None
    min: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Limit:
        if self.max is None and self.min is None:
            remedy = "for example {max: 5.0e+8}"
            raise PydanticCustomError("limit", "needs max, min or both", {"remedy": remedy})
        return self


class SearchStep(Section):
    """One step of the search: the whole grid of a space, or a number of trials that Optuna proposes."""

    method: Method = "grid"
    space: Space | None = None
    seeds: Seeds | None = None
    sampler: Sampler | None = None
    sampler_seed: Natural = 0
    trials: Positive | None = None
    objectives: Annotated[dict[Objective, Direction], Field(min_length=1)] | None = None
    constraints: Annotated[dict[Objective, Limit], Field(min_length=1)] | None = None
    pruning: Pruning | None = None

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
        return self

    @property
    def directions(self) -> dict[str, str]:
        """Objectives with their directions; validation accuracy upwards if the file gives none."""
        return dict(self.objectives or {"accuracy_val": "max"})

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


class Scale(Section):
    """A named size of a study, such as ``smoke``: what it changes, section by section.

    A section changes the keys that it gives. `space`, `seeds` and `search` stand for the study's own; a scale
    that gives a space and no search tries that space's grid.
    """

    description: str = ""
    data: Data | None = None
    model: Model | None = None
    precision: Precision | None = None
    memory: Memory | None = None
    train: Train | None = None
    space: Space | None = None
    seeds: Seeds | None = None
    search: Search | None = None
    scaling: Scaling | None = None
    probe: Probe | None = None
    budget: Budget | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the scale gives, and nothing else, under the file's own keys."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


ScaleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,19}$")]


class Study(Section):
    """One study: what is fixed, what varies, how it is searched, and what it may use."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    description: str = ""
    data: Data = Data()
    model: Model = Model()
    precision: Precision = Precision()
    memory: Memory = Memory()
    train: Train = Train()
    space: Space | None = None
    seeds: Seeds = (0,)
    search: Search = SearchStep()
    scaling: Scaling = Scaling()
    probe: Probe = Probe()
    budget: Budget = Budget()
    ladder: Ladder | None = None
    scales: dict[ScaleName, Scale] = Field(default_factory=dict)

    @field_serializer("scales")
    def _as_given(self, scales: dict[str, Scale]) -> dict[str, Any]:
        return {name: scale.to_dict() for name, scale in scales.items()}

    def at_scale(self, name: str) -> Study:
        """The study `<name>-<scale>` that one of this study's scales makes of it.

        Raises:
            StudyError: There is no such scale.
        """
        if name not in self.scales:
            rule = f"must be a scale of {self.name}"
            remedy = nearest(name, self.scales) if self.scales else "the study has none; leave --scale out"
            raise StudyError("scales", value=name, rule=rule, remedy=remedy)
        changes, values = self.scales[name].to_dict(), self.to_dict()
        values.pop("scales")
        if "space" in changes:
            values.pop("search", None)
        for key, change in changes.items():
            replaced = key in ("space", "search") or not isinstance(change, dict)
            values[key] = change if replaced else {**values.get(key, {}), **change}
        return Study.model_validate({**values, "name": f"{self.name}-{name}"})

    @property
    def steps(self) -> tuple[SearchStep, ...]:
        """The search steps in order, be there one or many."""
        return self.search if isinstance(self.search, tuple) else (self.search,)

    def spaces(self, step: int) -> dict[str, Mapping[str, Axis]]:
        """The sub-spaces of one step, its own or else the study's, each under its place in the file."""
        own = self.steps[step].space
        return _placed("space", self.space) if own is None else _placed(f"{self.place(step)}.space", own)

    def all_spaces(self) -> dict[str, Mapping[str, Axis]]:
        """Every sub-space of the file under its place, such as ``space`` or ``search[1].space[0]``."""
        found = _placed("space", self.space)
        for step in range(len(self.steps)):
            found.update(self.spaces(step))
        return found

    def place(self, step: int) -> str:
        """Where a step stands in the file: ``search`` or ``search[1]``."""
        return f"search[{step}]" if isinstance(self.search, tuple) else "search"

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the file's own keys; `parse_study` reads them back."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        if not values["scales"]:
            del values["scales"]
        return values

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of the study file, for editors."""
        return cls.model_json_schema(by_alias=True)


def builtin_studies() -> tuple[str, ...]:
    """Names of the studies that ship with the package."""
    folder = resources.files("study") / "studies"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_study(file_or_builtin: str | Path, scale: str | None = None) -> Study:
    """Read a study from a YAML or Python file, or by the name of a built-in study; at one of its scales.

    A Python file defines `study`, a `Study` or its plain values. A file without `name` is named after itself.

    Raises:
        StudyError: No such file, built-in study or scale, YAML that does not parse, or broken rules; all of
            them are listed.
    """
    path, source = Path(file_or_builtin), str(file_or_builtin)
    if path.suffix not in (".yaml", ".yml", ".py") and not path.is_file():
        names = builtin_studies()
        if source not in names:
            rule = "must be a study file or the name of a built-in study"
            raise StudyError(value=source, rule=rule, remedy=nearest(source, names))
        path = Path(str(resources.files("study") / "studies" / f"{source}.yaml"))
    values = _read_python(path) if path.suffix == ".py" else read_yaml(path)
    if isinstance(values, Study):
        values = values.to_dict()
    if isinstance(values, dict):
        values = {"name": path.stem, **values}
    study = parse_study(values, source=source)
    return study if scale is None else study.at_scale(scale)


def _read_python(path: Path) -> Any:
    try:
        return runpy.run_path(str(path))["study"]
    except KeyError:
        raise StudyError(value=str(path), rule="a Python study defines `study`", remedy="assign it") from None
    except StudyError:
        raise
    except Exception as error:
        rule = f"must be Python that runs ({type(error).__name__}: {error})"
        raise StudyError(value=str(path), rule=rule, remedy="run the file by itself to see where") from error


def parse_study(values: Any, *, source: str = "") -> Study:
    """Validate the plain content of a study file.

    Raises:
        StudyError: Any broken rule; `problems` lists all of them.
    """
    if not isinstance(values, dict):
        remedy = "for example name: my-study"
        raise StudyError(value=values, rule="must be a mapping of sections", remedy=remedy, source=source)
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(problems=problems_of(error, keys=keys_beside), source=source) from None
    problems = space_problems(study)
    for name in study.scales:
        problems += _problems_at_scale(study, name)
    if problems:
        raise StudyError(problems=problems, source=source)
    return study


def _problems_at_scale(study: Study, name: str) -> list[Problem]:
    """Rules that a scale breaks only together with the study's own sections, under the scale's place."""
    prefix = f"scales.{name}"
    try:
        scaled = study.at_scale(name)
    except ValidationError as error:
        return problems_of(error, keys=keys_beside, prefix=prefix)
    return [replace(problem, path=f"{prefix}.{problem.path}") for problem in space_problems(scaled)]


def keys_beside(location: Sequence[int | str]) -> tuple[str, ...]:
    """The legal keys at the place where an unknown one, the last of `location`, was found."""
    parents = [part for part in location[:-1] if isinstance(part, str)]
    if not parents:
        return tuple(Study.model_fields)
    if parents[0] == "scales":
        return keys_beside(location[2:]) if len(parents) > 2 else tuple(Scale.model_fields)
    if "." in parents[-1]:
        return (*KINDS, "step")
    if "constraints" in parents:
        return tuple(Limit.model_fields)
    sections: dict[str, type[Section]] = {
        **SECTIONS,
        "budget": Budget,
        "search": SearchStep,
        "pruning": Pruning,
        "ladder": Ladder,
    }
    return tuple(sections[parents[-1]].model_fields) if parents[-1] in sections else ()


def _placed(place: str, space: Any) -> dict[str, Mapping[str, Axis]]:
    if space is None:
        return {}
    if isinstance(space, tuple):
        return {f"{place}[{i}]": part for i, part in enumerate(space)}
    return {place: space}
