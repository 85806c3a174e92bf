"""The study file: `Study`, what is fixed in it and what varies, and its named scales.

Rules that need a model or a data set (legal depths, files that exist) are checked by `study.plan.points` when
points become trials, so that this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field, field_serializer

from study.errors import StudyError, nearest
from study.settings.data import DataSettings, TaskSettings
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.run import ProbeSettings, ScalingSettings
from study.settings.train import EvaluateSettings, TrainSettings
from study.settings.trial import sections
from study.spec.axes import KINDS, Axis, Seeds, Space
from study.spec.fields import (
    Budget,
    Changes,
    Data,
    Evaluate,
    Memory,
    Model,
    Precision,
    Probe,
    Scaling,
    Section,
    Task,
    Train,
)
from study.spec.ladder import Ladder
from study.spec.match import Match
from study.spec.search import Limit, Pruning, Search, SearchStep


class Scale(Section):
    """A named size of a study, such as ``smoke``: what it changes, section by section.

    A section changes the keys that it gives. `space`, `seeds`, `search` and `match` stand for the study's
    own; a scale that gives a space and no search tries that space's grid.
    """

    description: str = Field(default="", description="What the scale is for.")
    data: Annotated[dict[str, Any], Changes(DataSettings)] | None = Field(
        default=None, description="What it changes of data."
    )
    task: Annotated[dict[str, Any], Changes(TaskSettings)] | None = Field(
        default=None, description="What it changes of task."
    )
    model: Annotated[dict[str, Any], Changes(ModelSettings)] | None = Field(
        default=None, description="What it changes of model."
    )
    precision: Annotated[dict[str, Any], Changes(PrecisionSettings)] | None = Field(
        default=None, description="What it changes of precision."
    )
    memory: Annotated[dict[str, Any], Changes(MemorySettings)] | None = Field(
        default=None, description="What it changes of memory."
    )
    train: Annotated[dict[str, Any], Changes(TrainSettings)] | None = Field(
        default=None, description="What it changes of train."
    )
    evaluate: Annotated[dict[str, Any], Changes(EvaluateSettings)] | None = Field(
        default=None, description="What it changes of evaluate."
    )
    space: Space | None = Field(default=None, description="The space in place of the study's.")
    seeds: Seeds | None = Field(default=None, description="The seeds in place of the study's.")
    search: Search | None = Field(default=None, description="The steps in place of the study's.")
    scaling: Annotated[dict[str, Any], Changes(ScalingSettings)] | None = Field(
        default=None, description="What it changes of scaling."
    )
    probe: Annotated[dict[str, Any], Changes(ProbeSettings)] | None = Field(
        default=None, description="What it changes of probe."
    )
    budget: Budget | None = Field(default=None, description="What it changes of the limits.")
    match: Match | None = Field(default=None, description="The match in place of the study's.")

    def to_dict(self) -> dict[str, Any]:
        """What the scale gives, and nothing else, under the file's own keys."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


ScaleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,19}$")]


Word = Annotated[str, Field(pattern=r"^\w[\w .:+-]{0,39}$")]


class Study(Section):
    """One study: what is fixed, what varies, how it is searched, and what it may use."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")] = Field(
        description="The name under which its trials are kept; without it, the file's."
    )
    description: str = Field(default="", description="What the study asks.")
    tags: Annotated[tuple[Word, ...], Field(strict=False)] = Field(
        default=(), description="Words to find the study by, which status and the report show."
    )
    data: Data = Field(default=DataSettings(), description="What is learnt from.")
    task: Task = Field(default=TaskSettings(), description="The loss and the metrics.")
    model: Model = Field(default=ModelSettings(), description="The network.")
    precision: Precision = Field(default=PrecisionSettings(), description="Number formats.")
    memory: Memory = Field(
        default=MemorySettings(), description="How the backward pass gets its activations."
    )
    train: Train = Field(default=TrainSettings(), description="The training run.")
    evaluate: Evaluate = Field(
        default=EvaluateSettings(), description="When the network is evaluated in training."
    )
    space: Space | None = Field(
        default=None, description="What varies: values by dotted path, or a list of such spaces."
    )
    seeds: Seeds = Field(default=(0,), description="Seeds; every point is trained with each.")
    search: Search = Field(
        default=SearchStep(), description="How the space is searched: one step, or a list of steps."
    )
    scaling: Scaling = Field(default=ScalingSettings(), description="Workers and their resources.")
    probe: Probe = Field(default=ProbeSettings(), description="When fidelity is measured.")
    budget: Budget = Field(default=Budget(), description="Limits of the study and of its trials.")
    ladder: Ladder | None = Field(
        default=None, description="A rule for batch, learning rate and epochs by the size of the network."
    )
    match: Match | None = Field(
        default=None,
        description="A predicted size that every point is to have, and the setting that is solved for it.",
    )
    code: str | None = Field(
        default=None,
        description="The folder that import paths are looked up in first; without it, that of the file.",
    )
    scales: dict[ScaleName, Scale] = Field(
        default_factory=dict, description="Named variants of the study, smaller or larger."
    )

    @field_serializer("scales")
    def _as_given(self, scales: dict[str, Scale]) -> dict[str, Any]:
        return {name: scale.to_dict() for name, scale in scales.items()}

    def at_scale(self, name: str) -> Study:
        """Return the study `<name>-<scale>` that one of this study's scales makes of it.

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
            replaced = key in ("space", "search", "match") or not isinstance(change, dict)
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
        for name in ("scales", "tags"):
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of the study file, for editors."""
        return cls.model_json_schema(by_alias=True)


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
    if parents[-1] in sections():
        return tuple(field.name for field in fields(sections()[parents[-1]]))
    kinds: dict[str, type[Section]] = {
        "budget": Budget,
        "search": SearchStep,
        "pruning": Pruning,
        "ladder": Ladder,
        "match": Match,
    }
    return tuple(kinds[parents[-1]].model_fields) if parents[-1] in kinds else ()


def _placed(place: str, space: Any) -> dict[str, Mapping[str, Axis]]:
    if space is None:
        return {}
    if isinstance(space, tuple):
        return {f"{place}[{i}]": part for i, part in enumerate(space)}
    return {place: space}
