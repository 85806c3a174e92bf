"""The sections of a study file that fix settings, one model for each dataclass of `study.settings`.

Unknown keys are refused and types are strict: ``"10"`` is no number and ``true`` no 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from study import settings as s
from study.errors import nearest

DATASETS = ("digits", "synthetic", "cifar10", "cifar100", "imagenet", "parquet:<dir>", "folder:<dir>")

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
PositiveReal = Annotated[float, Field(gt=0)]
NaturalReal = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OneOf:
    """Marks a text field that takes one of `names`; its error names the nearest."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.names)}

    def _check(self, value: str) -> str:
        if value not in self.names:
            context = {"remedy": nearest(value, self.names)}
            raise PydanticCustomError("choice", "must be one of the choices", context)
        return value


def _check_data_name(name: str) -> str:
    kind, colon, rest = name.partition(":")
    if kind in ("parquet", "folder") and colon:
        if not rest:
            remedy = f"write {kind}:<dir>, such as {kind}:images"
            raise PydanticCustomError("data", "must name a folder after the colon", {"remedy": remedy})
    elif kind == "synthetic" and colon:
        sizes = rest.split("x")
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            rule = "must give channels x height x width x classes as positive whole numbers"
            raise PydanticCustomError("data", rule, {"remedy": "for example synthetic:3x32x32x10"})
        if sizes[1] != sizes[2]:
            remedy = f"for example synthetic:{sizes[0]}x{sizes[1]}x{sizes[1]}x{sizes[3]}"
            raise PydanticCustomError("data", "must give square images", {"remedy": remedy})
    elif name not in DATASETS or "<" in name:
        raise PydanticCustomError("data", "must be a known data set", {"remedy": nearest(name, DATASETS)})
    return name


Compute = Annotated[str, OneOf(s.COMPUTE_DTYPES)]
Stream = Annotated[str, OneOf(s.STREAM_DTYPES)]
Coupling = Annotated[str, OneOf(s.COUPLINGS)]
Matmul = Annotated[str, OneOf(s.MATMULS)]
OnOverflow = Annotated[str, OneOf(s.ON_OVERFLOW)]
Strategy = Annotated[str, OneOf(s.STRATEGIES)]
Optimizer = Annotated[str, OneOf(s.OPTIMIZERS)]
Schedule = Annotated[str, OneOf(s.SCHEDULES)]
Executor = Annotated[str, OneOf(s.EXECUTORS)]
Parallel = Annotated[str, OneOf(s.PARALLELS)]
Placement = Annotated[str, OneOf(s.PLACEMENTS)]
Workers = Annotated[
    Positive,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {
                    "type": "object",
                    "properties": {name: {"type": "integer", "minimum": 1} for name in ("min", "max")},
                    "required": ["min", "max"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A number of workers, or ``{min, max}`` of an elastic one, which `Scaling` takes apart."""


class Section(BaseModel):
    """Base of every part of the study file: frozen, strict, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    """Which images; see `study.settings.DataSettings`."""

    name: Annotated[str, AfterValidator(_check_data_name)] = s.DataSettings.name
    train_examples: Positive | None = s.DataSettings.train_examples
    test_examples: Positive | None = s.DataSettings.test_examples
    validation_fraction: Fraction = s.DataSettings.validation_fraction
    augment: bool | None = s.DataSettings.augment
    image_size: Positive | None = s.DataSettings.image_size
    root: str | None = s.DataSettings.root
    download: bool = s.DataSettings.download


class Model(Section):
    """A preset of revmodels; see `study.settings.ModelSettings`."""

    name: str = s.ModelSettings.name
    width: PositiveReal = s.ModelSettings.width
    depth: Positive | None = s.ModelSettings.depth


class Precision(Section):
    """Number formats; see `study.settings.PrecisionSettings`."""

    compute: Compute = s.PrecisionSettings.compute
    stream: Stream = s.PrecisionSettings.stream
    coupling: Coupling = s.PrecisionSettings.coupling
    matmul: Matmul = s.PrecisionSettings.matmul
    grid_bits: Natural | None = s.PrecisionSettings.grid_bits
    on_overflow: OnOverflow = s.PrecisionSettings.on_overflow


class Memory(Section):
    """How backward gets its activations; see `study.settings.MemorySettings`."""

    strategy: Strategy | None = s.MemorySettings.strategy
    anchor_every: Positive | None = s.MemorySettings.anchor_every
    activation_budget: Share | None = s.MemorySettings.activation_budget


class Train(Section):
    """The training run; see `study.settings.TrainSettings`."""

    epochs: Positive = s.TrainSettings.epochs
    batch_size: Positive = s.TrainSettings.batch_size
    optimizer: Optimizer = s.TrainSettings.optimizer
    learning_rate: PositiveReal = s.TrainSettings.learning_rate
    momentum: BelowOne = s.TrainSettings.momentum
    weight_decay: NaturalReal = s.TrainSettings.weight_decay
    schedule: Schedule = s.TrainSettings.schedule
    warmup_epochs: NaturalReal = s.TrainSettings.warmup_epochs
    clip_norm: PositiveReal | None = s.TrainSettings.clip_norm
    label_smoothing: BelowOne = s.TrainSettings.label_smoothing
    channels_last: bool = s.TrainSettings.channels_last


class Scaling(Section):
    """Workers and their resources; see `study.settings.ScalingSettings`."""

    workers: Workers = s.ScalingSettings.workers
    min_workers: Positive | None = s.ScalingSettings.min_workers
    cpus_per_worker: PositiveReal = s.ScalingSettings.cpus_per_worker
    gpus_per_worker: NaturalReal = s.ScalingSettings.gpus_per_worker
    executor: Executor = s.ScalingSettings.executor
    parallel: Parallel = s.ScalingSettings.parallel
    placement: Placement = s.ScalingSettings.placement
    alone: bool = s.ScalingSettings.alone

    @model_validator(mode="before")
    @classmethod
    def _elastic(cls, values: Any) -> Any:
        """Read ``workers: {min: 1, max: 4}`` as ``workers: 4, min_workers: 1``."""
        workers = values.get("workers") if isinstance(values, dict) else None
        if not isinstance(workers, dict) or set(workers) != {"min", "max"} or "min_workers" in values:
            return values
        return {**values, "workers": workers["max"], "min_workers": workers["min"]}


class Probe(Section):
    """When fidelity is measured; see `study.settings.ProbeSettings`."""

    every: Positive | None = s.ProbeSettings.every
    examples: Positive = s.ProbeSettings.examples
    enabled: bool = s.ProbeSettings.enabled
    reference: bool = s.ProbeSettings.reference
    lipschitz: bool = s.ProbeSettings.lipschitz
    cost: bool = s.ProbeSettings.cost


class Budget(Section):
    """Limits: seconds of the whole study, trials of the whole study, seconds of one trial."""

    time_s: PositiveReal | None = None
    trials: Positive | None = None
    trial_time_s: PositiveReal | None = None


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "precision": Precision,
    "memory": Memory,
    "train": Train,
    "scaling": Scaling,
    "probe": Probe,
}
"""The sections that make up the settings of a trial."""

PATHS = tuple(f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields)
"""Every dotted path that a space may vary."""
