"""The sections of a study file that fix settings: the dataclasses of `study.settings`, checked by pydantic.

Unknown keys are refused and types are strict: ``"10"`` is no number and ``true`` no 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from study.settings.data import DataSettings, TaskSettings
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.run import ProbeSettings, ScalingSettings
from study.settings.setting import Setting
from study.settings.train import EvaluateSettings, TrainSettings
from study.settings.trial import sections

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
PositiveReal = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of every other part of the study file: frozen, strict, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Mapping:
    """Marks a dataclass that a study file gives as a mapping of its fields."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        # Strict types are for the fields. A strict dataclass would take no mapping.
        whole: dict[str, Any] = handler.resolve_ref_schema(schema)  # type: ignore[assignment]
        whole["strict"] = False
        return schema


def _coupled(values: Any) -> Any:
    """Read ``coupling: {name: momentum, gamma: 0.9}`` as the name and ``coupling_numbers: {gamma: 0.9}``."""
    coupling = values.get("coupling") if isinstance(values, dict) else None
    if not isinstance(coupling, dict) or "name" not in coupling or values.get("coupling_numbers"):
        return values
    numbers = {key: value for key, value in coupling.items() if key != "name"}
    return {**values, "coupling": coupling["name"], "coupling_numbers": numbers}


def _elastic(values: Any) -> Any:
    """Read ``workers: {min: 1, max: 4}`` as ``workers: 4, min_workers: 1``."""
    workers = values.get("workers") if isinstance(values, dict) else None
    if not isinstance(workers, dict) or set(workers) != {"min", "max"} or "min_workers" in values:
        return values
    return {**values, "workers": workers["max"], "min_workers": workers["min"]}


Data = Annotated[DataSettings, _Mapping()]
Task = Annotated[TaskSettings, _Mapping()]
Model = Annotated[ModelSettings, _Mapping(), BeforeValidator(_coupled)]
Precision = Annotated[PrecisionSettings, _Mapping()]
Memory = Annotated[MemorySettings, _Mapping()]
Train = Annotated[TrainSettings, _Mapping()]
Evaluate = Annotated[EvaluateSettings, _Mapping()]
Scaling = Annotated[ScalingSettings, _Mapping(), BeforeValidator(_elastic)]
Probe = Annotated[ProbeSettings, _Mapping()]

SECTIONS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind)
    for name, kind in {
        "data": Data,
        "task": Task,
        "model": Model,
        "precision": Precision,
        "memory": Memory,
        "train": Train,
        "evaluate": Evaluate,
        "scaling": Scaling,
        "probe": Probe,
    }.items()
}
"""What checks each section of a trial's settings, by its name."""

PATHS = tuple(f"{name}.{field.name}" for name, kind in sections().items() for field in fields(kind))
"""Every dotted path that a space may vary, beside those of options."""


_OPTIONS = ("options", "optimizer_options", "coupling_numbers")
"""Settings that hold values by name, each of which a space may vary by itself."""


def is_setting(path: str) -> bool:
    """Return whether a space may vary a dotted path: a setting, or an option of what a study brings.

    >>> is_setting("model.width"), is_setting("model.options.heads"), is_setting("model.heads")
    (True, True, False)
    """
    section, _, rest = path.partition(".")
    inside, _, option = rest.partition(".")
    known = f"{section}.{inside}" in PATHS and inside in _OPTIONS
    return path in PATHS or (known and option.isidentifier())


def with_value(section: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The values of a section with another one for a key, which may be ``options.<name>``."""
    inside, _, option = key.partition(".")
    if not option:
        return {**section, key: value}
    return {**section, inside: {**section.get(inside, {}), option: value}}


class Changes:
    """Marks a mapping with some of the fields of a section, which are checked as the section's own."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        whole = handler.generate_schema(Annotated[self._kind, _Mapping()])
        return core_schema.no_info_wrap_validator_function(
            self._given, whole, serialization=core_schema.plain_serializer_function_ser_schema(dict)
        )

    @staticmethod
    def _given(values: Any, check: Callable[[Any], Any]) -> dict[str, Any]:
        values = _elastic(_coupled(values))
        checked = check(values)
        names = [field.name for field in fields(checked)] if is_dataclass(values) else values
        return {name: getattr(checked, name) for name in names}


class Budget(Section):
    """Limits of a study and of its trials."""

    time_s: Annotated[float | None, Setting("Time of the whole study.", "seconds", above=0)] = None
    trials: Annotated[int | None, Setting("Trials of the whole study.", "trials", at_least=1)] = None
    trial_time_s: Annotated[float | None, Setting("Time of one trial.", "seconds", above=0)] = None
    unfit: Annotated[
        str,
        Setting(
            "What becomes of trials that are predicted not to fit the memory of their machine: a row that "
            "says so, or an attempt all the same.",
            choices=("skip", "try"),
        ),
    ] = "skip"
