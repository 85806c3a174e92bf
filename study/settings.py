"""The settings of one trial, fully resolved: plain frozen dataclasses, standard library only.

Each setting is written here and nowhere else: its type, default, meaning, limits and unit, its column and
whether it is part of a trial's identity (`study.setting`). To add one, add its field here, and use it. Its
identity is `IF_CHANGED`, so that the trials from before it keep their ids.

The study file (`study.spec.study`) describes many trials; `study.plan.points` turns each of its points into
one `TrialSettings`. The training loop reads these and nothing else, so it needs no pydantic and no Ray.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

from study.code import is_own
from study.errors import nearest
from study.setting import IF_CHANGED, NEVER, NO_OPTIONS, BrokenRule, Options, Setting

TEXTS = ("stdlib", "text:<path>", "tokens:<path>", "markov:<order>")
"""Kinds of data that are text."""
DATASETS = (
    *("digits", "synthetic", "cifar10", "cifar100", "imagenet", "parquet:<dir>", "folder:<dir>"),
    *("hf:<name>", *TEXTS),
)
STRATEGIES = (
    *("store", "reverse", "checkpoint", "segments", "recursive", "selective", "offload", "quantized"),
    *("compile", "budget"),
)
SAVED_FORMATS = ("int8", "float8_e4m3fn")
RECIPES = ("crop", "imagenet")
COMPUTE_DTYPES = ("fp64", "fp32", "bf16", "fp16")
STREAM_DTYPES = ("fp64", "fp32", "bf16", "fp16")
COUPLINGS = ("additive", "exact")
MATMULS = ("ieee", "tf32")
ON_OVERFLOW = ("raise", "record")
OPTIMIZERS = ("sgd", "adamw", "adam", "muon")
ADAMS = ("adamw", "adam", "muon")
"""Optimizers with the two averages of Adam; Muon leaves embeddings, biases and gains to AdamW."""
SCHEDULES = ("cosine", "step", "constant", "linear", "wsd")
EVALUATION_UNITS = ("epochs", "steps")
EXECUTORS = ("auto", "tune", "train")
PARALLELS = ("ddp", "fsdp2")
PLACEMENTS = ("PACK", "SPREAD")


def is_text(name: str) -> bool:
    """Whether the name of a data set is that of a text."""
    return name.partition(":")[0] in {kind.partition(":")[0] for kind in TEXTS}


def check_data_name(name: str) -> None:
    """Check the name of a data set; whether its files are there is seen when it is opened.

    Raises:
        BrokenRule: There is no such kind of data set, or its sizes or its folder are missing.
    """
    kind, colon, rest = name.partition(":")
    if kind == "hf" and colon:
        if not rest:
            raise BrokenRule("must name a data set after the colon", "for example hf:uoft-cs/cifar10")
    elif kind in ("parquet", "folder", "text", "tokens") and colon:
        if not rest:
            raise BrokenRule(
                "must name a folder after the colon", f"write {kind}:<dir>, such as {kind}:images"
            )
    elif kind == "markov" and colon:
        if not rest.isdecimal():
            raise BrokenRule("must give an order after the colon", "for example markov:2")
    elif kind == "synthetic" and colon:
        sizes = rest.split("x")
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            rule = "must give channels x height x width x classes as positive whole numbers"
            raise BrokenRule(rule, "for example synthetic:3x32x32x10")
        if sizes[1] != sizes[2]:
            remedy = f"for example synthetic:{sizes[0]}x{sizes[1]}x{sizes[1]}x{sizes[3]}"
            raise BrokenRule("must give square images", remedy)
    elif (name not in DATASETS or "<" in name) and not is_own("data.name", name):
        raise BrokenRule("must be a known data set", nearest(name, DATASETS))


class _Strict:
    """How pydantic reads the dataclasses of a study file: no unknown keys, ``"10"`` is no number."""

    __pydantic_config__ = {  # noqa: RUF012
        "strict": True,
        "extra": "forbid",
        "allow_inf_nan": False,
        "revalidate_instances": "always",
    }


@dataclass(frozen=True, kw_only=True)
class DataSettings(_Strict):
    """What is learnt from. The validation set is part of the training pool; the test set is apart."""

    name: Annotated[
        str,
        Setting(
            "The data set: a built-in one, files of your own behind parquet:, folder:, text: or tokens:, or "
            "a function of your own as module:function.",
            check=check_data_name,
            identity=NEVER,
            column="data",
        ),
    ] = "digits"
    train_examples: Annotated[
        int | None,
        Setting("Training examples, a stratified subset; without it, all.", "examples", at_least=1),
    ] = None
    test_examples: Annotated[
        int | None, Setting("Test examples, a stratified subset; without it, all.", "examples", at_least=1)
    ] = None
    validation_fraction: Annotated[
        float, Setting("The share of the training pool that is kept for validation.", above=0, below=1)
    ] = 0.1
    augment: Annotated[
        bool | None,
        Setting("Whether training images are cropped and flipped at random; without it, the data set says."),
    ] = None
    image_size: Annotated[
        int | None,
        Setting(
            "The side to which images in files are resized; without it, that of the first image.",
            "pixels",
            at_least=1,
        ),
    ] = None
    context_length: Annotated[
        int | None,
        Setting(
            "Tokens of a sequence of text; without it, 256.",
            "tokens",
            at_least=1,
            identity=IF_CHANGED,
            column="context_length",
        ),
    ] = None
    tokenizer: Annotated[
        str,
        Setting(
            "What cuts text into tokens: bytes, bpe:<vocabulary size> or file:<tokenizer.json>.",
            identity=NEVER,
        ),
    ] = "bytes"
    options: Annotated[
        Options, Setting("What a data set of your own is loaded with.", identity=IF_CHANGED)
    ] = NO_OPTIONS
    root: Annotated[
        str | None,
        Setting("The folder that holds the data sets; without it, REVSTUDY_DATA or data.", identity=NEVER),
    ] = None
    download: Annotated[
        bool, Setting("Whether torchvision may fetch a data set that is missing.", identity=NEVER)
    ] = False
    recipe: Annotated[
        str,
        Setting(
            "How training images are varied: crop pads, crops and flips them; imagenet cuts out parts of "
            "random size and shape, flips them and distorts their colors, and evaluates the middle.",
            choices=RECIPES,
            identity=IF_CHANGED,
        ),
    ] = "crop"
    loader_workers: Annotated[
        int,
        Setting(
            "Processes beside each worker that decode images which are not kept in memory.",
            "processes",
            at_least=0,
            identity=NEVER,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class TaskSettings(_Strict):
    """What is learnt: the loss, and the metrics."""

    name: Annotated[
        str | None,
        Setting(
            "classification, language, or a class of your own as module:class; without it, what the data "
            "are for.",
            column="task",
        ),
    ] = None
    options: Annotated[Options, Setting("What a task of your own is made with.", identity=IF_CHANGED)] = (
        NO_OPTIONS
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings(_Strict):
    """The network: a preset of `revmodels`, its width, and another legal depth if not its own; or a network
    of your own, with its options.
    """

    name: Annotated[
        str,
        Setting(
            "The preset, such as revnet110; `revstudy models` lists them. Or a function of your own that "
            "builds the network, as module:function.",
            column="model",
        ),
    ] = "revnet38"
    options: Annotated[Options, Setting("What a network of your own is built with.", identity=IF_CHANGED)] = (
        NO_OPTIONS
    )
    width: Annotated[
        float, Setting("What the channels of the preset are multiplied by.", above=0, column="width")
    ] = 1.0
    depth: Annotated[
        int | None,
        Setting(
            "Another depth of the same design; without it, the preset's.",
            "layers",
            at_least=1,
            column="depth",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PrecisionSettings(_Strict):
    """The fields of `revmodels.Precision`: arithmetic of F and G, type of the streams, coupling, matmul."""

    compute: Annotated[
        str,
        Setting(
            "The arithmetic of F and G, and with fp64 of all else.",
            choices=COMPUTE_DTYPES,
            column="compute_dtype",
        ),
    ] = "fp32"
    stream: Annotated[
        str, Setting("The type that carries the two streams.", choices=STREAM_DTYPES, column="stream_dtype")
    ] = "fp32"
    coupling: Annotated[
        str,
        Setting(
            "Whether streams are added in floating point (additive) or on a grid, without any rounding "
            "(exact).",
            choices=COUPLINGS,
            column="coupling",
        ),
    ] = "additive"
    matmul: Annotated[
        str,
        Setting(
            "Whether CUDA multiplies float32 in full (ieee) or shortened (tf32).",
            choices=MATMULS,
            column="matmul",
        ),
    ] = "ieee"
    grid_bits: Annotated[
        int | None,
        Setting(
            "The k of an exact coupling's multiples of 2^-k; without it, the stream's default.",
            "bits",
            at_least=0,
            only_with=("coupling", "exact"),
            column="grid_bits",
        ),
    ] = None
    on_overflow: Annotated[
        str,
        Setting(
            "What an exact stream beyond its range does: end the trial (raise), or be counted (record).",
            choices=ON_OVERFLOW,
            identity=IF_CHANGED,
            only_with=("coupling", "exact"),
        ),
    ] = "raise"


@dataclass(frozen=True, kw_only=True)
class MemorySettings(_Strict):
    """How the backward pass gets its activations.

    ``store`` keeps them, ``reverse`` rebuilds them from the block's output. ``checkpoint`` keeps the input of
    every unit, ``segments`` and ``recursive`` those of √L and O(log L) of L units, and ``selective`` some
    results within each unit besides. ``offload`` keeps all of them in host memory, ``quantized`` in 8 bits.
    ``compile`` has PyTorch's compiler choose what is kept, and ``budget`` does so unit by unit within a
    number of bytes.
    """

    strategy: Annotated[
        str | None,
        Setting(
            "How activations are kept or rebuilt; without it, store for ResNets, else reverse.",
            choices=STRATEGIES,
            column="strategy",
        ),
    ] = None
    anchor_every: Annotated[
        int | None,
        Setting(
            "With reverse, every so many units of a stage one keeps its input too; without it, none.",
            "units",
            at_least=1,
            identity=IF_CHANGED,
            column="anchor_every",
        ),
    ] = None
    activation_budget: Annotated[
        float | None,
        Setting(
            "With compile, the share that is kept of what the compiler would keep otherwise.",
            above=0,
            at_most=1,
            identity=IF_CHANGED,
            column="activation_budget",
        ),
    ] = None
    memory_budget_bytes: Annotated[
        int | None,
        Setting(
            "With budget, the most that activations may take at once; without it, what reverse takes.",
            "bytes",
            at_least=1,
            identity=IF_CHANGED,
            column="memory_budget_bytes",
        ),
    ] = None
    saved_format: Annotated[
        str | None,
        Setting(
            "With quantized, the 8 bits in which activations are kept; without it, int8.",
            choices=SAVED_FORMATS,
            identity=IF_CHANGED,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainSettings(_Strict):
    """One training run."""

    epochs: Annotated[
        int,
        Setting(
            "How often the training set is passed, unless steps or tokens say how long training is.",
            "epochs",
            at_least=1,
            unless=("steps", "tokens"),
            column="epochs",
        ),
    ] = 10
    steps: Annotated[
        int | None,
        Setting(
            "Optimizer steps of the training, in place of epochs.",
            "steps",
            at_least=1,
            identity=IF_CHANGED,
            column="steps",
        ),
    ] = None
    tokens: Annotated[
        int | None,
        Setting(
            "Tokens that are learnt from, in place of epochs; rounded up to whole steps.",
            "tokens",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
    batch_size: Annotated[
        int,
        Setting(
            "Examples of an optimizer step, over all workers.", "examples", at_least=1, column="batch_size"
        ),
    ] = 128
    accumulate: Annotated[
        int,
        Setting(
            "Parts in which the batch of a step goes through the network, which saves memory.",
            "parts",
            at_least=1,
            identity=IF_CHANGED,
            column="accumulate",
        ),
    ] = 1
    optimizer: Annotated[
        str,
        Setting(
            "The optimizer: sgd with momentum, adam, adamw, or muon for matrices with AdamW for the rest; or "
            "a function of your own as module:function.",
            choices=OPTIMIZERS,
            importable=True,
            column="optimizer",
        ),
    ] = "sgd"
    optimizer_options: Annotated[
        Options, Setting("What an optimizer of your own is made with.", identity=IF_CHANGED)
    ] = NO_OPTIONS
    learning_rate: Annotated[
        float, Setting("The highest learning rate of the schedule.", above=0, column="learning_rate")
    ] = 0.1
    momentum: Annotated[
        float, Setting("The momentum of SGD.", at_least=0, below=1, only_with=("optimizer", "sgd"))
    ] = 0.9
    nesterov: Annotated[
        bool,
        Setting(
            "Whether SGD looks ahead along its momentum (Nesterov).",
            identity=IF_CHANGED,
            only_with=("optimizer", "sgd"),
        ),
    ] = False
    beta1: Annotated[
        float,
        Setting(
            "The decay of Adam's average of gradients.",
            at_least=0,
            below=1,
            identity=IF_CHANGED,
            only_with=("optimizer", ADAMS),
        ),
    ] = 0.9
    beta2: Annotated[
        float,
        Setting(
            "The decay of Adam's average of squared gradients.",
            at_least=0,
            below=1,
            identity=IF_CHANGED,
            only_with=("optimizer", ADAMS),
        ),
    ] = 0.999
    fused: Annotated[
        bool,
        Setting("Whether the optimizer updates all parameters in one kernel.", identity=IF_CHANGED),
    ] = False
    weight_decay: Annotated[
        float,
        Setting(
            "The decay of the weights of convolutions and linear layers.", at_least=0, column="weight_decay"
        ),
    ] = 2e-4
    schedule: Annotated[
        str,
        Setting("How the learning rate goes on after the warm-up.", choices=SCHEDULES, column="schedule"),
    ] = "cosine"
    warmup_epochs: Annotated[
        float,
        Setting(
            "Epochs in which the learning rate rises to its peak, unless warmup_steps says it in steps.",
            "epochs",
            at_least=0,
            unless=("warmup_steps",),
        ),
    ] = 0.0
    warmup_steps: Annotated[
        int | None,
        Setting(
            "Steps in which the learning rate rises to its peak, in place of warmup_epochs.",
            "steps",
            at_least=0,
            identity=IF_CHANGED,
        ),
    ] = None
    decay_fraction: Annotated[
        float,
        Setting(
            "With wsd, the share of all steps at the end in which the learning rate falls to 0.",
            above=0,
            at_most=1,
            identity=IF_CHANGED,
            only_with=("schedule", "wsd"),
        ),
    ] = 0.2
    clip_norm: Annotated[
        float | None,
        Setting(
            "The norm to which larger gradients are scaled down; without it, they stay as they are.", above=0
        ),
    ] = None
    label_smoothing: Annotated[
        float, Setting("The share of each target that is spread over all classes.", at_least=0, below=1)
    ] = 0.0
    patience: Annotated[
        int | None,
        Setting(
            "Evaluations without a lower validation loss after which training ends; without it, never.",
            "evaluations",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
    channels_last: Annotated[
        bool, Setting("Whether images and weights lie in memory with the channels last.")
    ] = True

    @property
    def by_epoch(self) -> bool:
        """Whether `epochs` says how long the training is."""
        return self.steps is None and self.tokens is None


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(_Strict):
    """When the network is evaluated, which writes a row and a checkpoint; the last step is always followed
    by an evaluation.
    """

    every: Annotated[
        int | None,
        Setting(
            "The distance of evaluations; without it, each epoch, or ten in a training of so many steps.",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
    unit: Annotated[
        str | None,
        Setting(
            "What the distance is counted in; without it, in what the length of the training is.",
            choices=EVALUATION_UNITS,
            identity=IF_CHANGED,
        ),
    ] = None
    examples: Annotated[
        int | None,
        Setting(
            "Validation examples of an evaluation, spread evenly over all; without it, all.",
            "examples",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None


_WORKERS = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {
            "type": "object",
            "properties": {
                name: {"type": "integer", "minimum": 1, "description": f"The {word} workers that it takes."}
                for name, word in (("min", "fewest"), ("max", "most"))
            },
            "required": ["min", "max"],
            "additionalProperties": False,
        },
    ]
}
"""A number of workers, or ``{min, max}`` of an elastic one, which `study.spec.fields` takes apart."""


@dataclass(frozen=True, kw_only=True)
class ScalingSettings(_Strict):
    """Data-parallel workers and what each one gets.

    With `min_workers`, the number is elastic: a trial starts with as many as there is room for, from
    `min_workers` to `workers`, and goes on with another number when machines come and go.
    """

    workers: Annotated[
        int,
        Setting(
            "Data-parallel workers of a trial, or {min, max} where their number may change.",
            "workers",
            at_least=1,
            column="workers",
            written=_WORKERS,
        ),
    ] = 1
    min_workers: Annotated[
        int | None,
        Setting(
            "The least number of workers of an elastic trial; without it, their number is fixed.",
            "workers",
            at_least=1,
            column="workers_min",
        ),
    ] = None
    cpus_per_worker: Annotated[
        float, Setting("Cores of each worker, and its threads.", "cores", above=0, identity=NEVER)
    ] = 1
    gpus_per_worker: Annotated[
        float,
        Setting(
            "GPUs of each worker; below 1, several trials share one.",
            "GPUs",
            at_least=0,
            identity=NEVER,
            column="gpus_per_worker",
        ),
    ] = 0
    executor: Annotated[
        str,
        Setting(
            "What runs a trial: a reused process of Ray Tune, or a group of Ray Train; auto by the number "
            "of workers.",
            choices=EXECUTORS,
            identity=NEVER,
        ),
    ] = "auto"
    parallel: Annotated[
        str,
        Setting(
            "What each worker holds: the whole network (ddp), or a share of its parameters, gradients "
            "and optimizer state (fsdp2).",
            choices=PARALLELS,
            identity=IF_CHANGED,
            column="parallel",
        ),
    ] = "ddp"
    placement: Annotated[
        str,
        Setting(
            "Whether workers share few machines (PACK) or are spread over many (SPREAD).",
            choices=PLACEMENTS,
            identity=NEVER,
        ),
    ] = "PACK"
    alone: Annotated[
        bool,
        Setting(
            "Whether trials run one at a time, so that none disturbs the times of another.", identity=NEVER
        ),
    ] = False

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change."""
        return self.min_workers is not None and self.min_workers < self.workers

    @property
    def distributed(self) -> bool:
        """Whether a trial is a group of workers rather than one reused process."""
        return self.executor == "train" or (self.workers > 1 and self.executor == "auto")


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(_Strict):
    """When fidelity is measured: before the training, at each `every`-th evaluation, and at the end."""

    every: Annotated[
        int | None,
        Setting(
            "Evaluations from one probe to the next; without it, only the first and the last are probed.",
            "evaluations",
            at_least=1,
        ),
    ] = None
    examples: Annotated[int, Setting("Examples of a probe's batch.", "examples", at_least=1)] = 64
    enabled: Annotated[bool, Setting("Whether fidelity is measured at all.", identity=NEVER)] = True
    reference: Annotated[
        bool,
        Setting("Whether every block's gradient is also compared with a float64 copy.", identity=IF_CHANGED),
    ] = False
    lipschitz: Annotated[
        bool,
        Setting("Whether the amplification of errors by F and G is also estimated.", identity=IF_CHANGED),
    ] = False
    cost: Annotated[
        bool,
        Setting(
            "Whether memory and time are measured; without them, trials may share a GPU.", identity=IF_CHANGED
        ),
    ] = True


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """One point of a study, fully resolved: what `study.train.trial.train_trial` runs."""

    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    precision: PrecisionSettings = field(default_factory=PrecisionSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    seed: Annotated[int, Setting("The seed of weights, data order and dropout.", column="seed")] = 0
    code: Annotated[
        str | None,
        Setting(
            "The folder that import paths are looked up in; without it, what is installed.", identity=NEVER
        ),
    ] = None

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

    Returns:
        The settings.

    Raises:
        TypeError: A key is not a field of its section.
    """
    return _build(TrialSettings, values)


@lru_cache(maxsize=32)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: type, values: dict[str, Any]) -> Any:
    hints = _hints(kind)
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}; fields: {', '.join(sorted(known))}")
    return kind(**{k: _value(hints[k], v) for k, v in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if hint is Options:
        return Options(value)
    return _build(hint, value) if isinstance(hint, type) and is_dataclass(hint) else value


@lru_cache(maxsize=32)
def settings_of(kind: Any) -> dict[str, Setting]:
    """Return what is to be known of each field of a settings dataclass, by its name.

    Args:
        kind: The dataclass. Fields that are dataclasses themselves are left out.
    """
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: part for name, hint in hints.items() for part in get_args(hint) if isinstance(part, Setting)
    }


def sections() -> dict[str, Any]:
    """The dataclass of each section of a trial's settings, by its name."""
    return {name: kind for name, kind in _hints(TrialSettings).items() if is_dataclass(kind)}


def columns_of(settings: TrialSettings) -> dict[str, Any]:
    """The settings that have a column of their own in a trial's row, as the study file gives them."""
    found = {}
    parts: list[Any] = [*(getattr(settings, name) for name in sections()), settings]
    for part in parts:
        kind: Any = type(part)
        hints = _hints(kind)
        for name, setting in settings_of(kind).items():
            if setting.column:
                value = getattr(part, name)
                real = value is not None and hints[name] in (float, float | None)
                found[setting.column] = float(value) if real else value
    return found
