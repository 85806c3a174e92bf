"""The settings of one trial, fully resolved: plain frozen dataclasses, standard library only.

The study file (`study.spec.study`) describes many trials; `study.plan.points` turns each of its points into
one `TrialSettings`. The training loop reads these and nothing else, so it needs no pydantic and no Ray.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_type_hints

STRATEGIES = ("store", "reverse", "checkpoint", "recursive", "compile")
COMPUTE_DTYPES = ("fp64", "fp32", "bf16", "fp16")
STREAM_DTYPES = ("fp64", "fp32", "bf16", "fp16")
COUPLINGS = ("additive", "exact")
MATMULS = ("ieee", "tf32")
ON_OVERFLOW = ("raise", "record")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "step", "constant")
EXECUTORS = ("auto", "tune", "train")
PARALLELS = ("ddp", "fsdp2")
PLACEMENTS = ("PACK", "SPREAD")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images. `validation_fraction` is of the training pool; the test set is never touched by it.

    `train_examples` and `test_examples` take a stratified subset (None: all). `image_size` resizes the
    images of a folder (None: the size of the first one). `augment` None decides by the data set. `root`
    and `download` concern torchvision's data sets; they say where the files are, not what they hold.
    """

    name: str = "digits"
    train_examples: int | None = None
    test_examples: int | None = None
    validation_fraction: float = 0.1
    augment: bool | None = None
    image_size: int | None = None
    root: str | None = None
    download: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A preset of `revmodels`, the multiplier on its channels, and another legal depth if not its own."""

    name: str = "revnet38"
    width: float = 1.0
    depth: int | None = None


@dataclass(frozen=True, kw_only=True)
class PrecisionSettings:
    """The fields of `revmodels.Precision`: arithmetic of F and G, type of the streams, coupling, matmul.

    `grid_bits` is the k of an exact coupling's multiples of 2^-k; None takes the stream's default. What a
    stream beyond their range does is `on_overflow`: ``raise`` ends the trial, ``record`` counts the steps.
    """

    compute: str = "fp32"
    stream: str = "fp32"
    coupling: str = "additive"
    matmul: str = "ieee"
    grid_bits: int | None = None
    on_overflow: str = "raise"


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How backward gets its activations; None resolves to ``store`` for ResNets, else ``reverse``.

    ``checkpoint`` keeps the input of every unit, ``recursive`` (RevNets alone) those of O(log L) of L units.
    With ``reverse``, every `anchor_every`-th unit of a stage keeps its input too (None: none does).
    ``compile`` has PyTorch's compiler choose what is kept, within a share of what it would keep else, the
    `activation_budget`.
    """

    strategy: str | None = None
    anchor_every: int | None = None
    activation_budget: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run. `batch_size` is global, over all workers; `learning_rate` is the peak."""

    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    channels_last: bool = True


@dataclass(frozen=True, kw_only=True)
class ScalingSettings:
    """Data-parallel workers and what each one gets.

    With `min_workers`, the number is elastic: a trial starts with as many as there is room for, from
    `min_workers` to `workers`, and goes on with another number when machines come and go. `parallel` says
    what the workers hold: the whole network (``ddp``), or a share of each unit's parameters, gradients and
    optimizer state (``fsdp2``). `placement` packs them on few machines or spreads them over many. With
    `alone`, trials run one at a time, so that none disturbs the times of another.
    """

    workers: int = 1
    min_workers: int | None = None
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    executor: str = "auto"
    parallel: str = "ddp"
    placement: str = "PACK"
    alone: bool = False

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change."""
        return self.min_workers is not None and self.min_workers < self.workers

    @property
    def distributed(self) -> bool:
        """Whether a trial is a group of workers rather than one reused process."""
        return self.executor == "train" or (self.workers > 1 and self.executor == "auto")


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """When fidelity is measured: at epoch 0, each `every` epochs (None: no more), and at the end.

    `reference` also compares every block's gradient with a float64 copy; `lipschitz` also estimates how much
    F and G amplify errors. Neither changes the training. `cost` False leaves the columns of memory and time
    empty: such a trial is after accuracy alone, and may share a GPU with others.
    """

    every: int | None = None
    examples: int = 64
    enabled: bool = True
    reference: bool = False
    lipschitz: bool = False
    cost: bool = True


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """One point of a study, fully resolved: what `study.train.trial.train_trial` runs."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    precision: PrecisionSettings = field(default_factory=PrecisionSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    seed: int = 0

    def with_seed(self, seed: int) -> TrialSettings:
        """The same settings under another seed. (`dataclasses.replace` takes ten times as long.)"""
        other = object.__new__(TrialSettings)
        other.__dict__.update(self.__dict__, seed=seed)
        return other

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, ready for JSON and for `settings_from_dict`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A planned trial: its identity, the study that asked for it, its settings, and what proposed it.

    `origin` is ``grid`` or the sampler's name. `memory_predicted_bytes` is filled by a plan that predicts.
    """

    trial_id: str
    study: str
    settings: TrialSettings
    origin: str = "grid"
    memory_predicted_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, for JSON or another process."""
        return asdict(self)


def settings_from_dict(values: dict[str, Any]) -> TrialSettings:
    """Rebuild `TrialSettings` from `TrialSettings.to_dict`.

    Raises:
        TypeError: A key is not a field of its section.
    """
    return _build(TrialSettings, values)


def section_from_dict(name: str, values: dict[str, Any]) -> Any:
    """One section of `TrialSettings`, such as ``model``, from its plain values."""
    return _hints(TrialSettings)[name](**values)


def trial_from_dict(values: dict[str, Any]) -> Trial:
    """Rebuild a `Trial` from `Trial.to_dict`."""
    return _build(Trial, values)


@lru_cache(maxsize=32)
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: type, values: dict[str, Any]) -> Any:
    hints = _hints(kind)
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}; fields: {', '.join(sorted(known))}")
    nested = {k: _build(hints[k], v) if is_dataclass(hints[k]) else v for k, v in values.items()}
    return kind(**nested)
