"""What a network takes: its parameters, and the bytes of one training step, predicted on fake tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from study.data.load import DataShape, data_shape
from study.settings import MemorySettings, ModelSettings, PrecisionSettings, TrainSettings, TrialSettings
from study.train.build import network_of
from study.train.optim import make_optimizer

_WITHOUT_COST = (
    *("epochs", "batch_size", "learning_rate", "schedule", "warmup_epochs", "clip_norm", "label_smoothing"),
)
"""Settings of the training that do not change what a step takes: equal models are computed once."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a trial's model takes: trainable parameters, and bytes of one training step on one worker."""

    parameters: int
    memory_bytes: int
    activation_bytes: int


def trial_cost(settings: TrialSettings) -> Cost:
    """Return parameters and predicted memory of a trial, on fake tensors; equal models are computed once.

    Of a sharded network (`fsdp2`) it is an estimate: whole activations, and a worker's share of all else.
    Of a compiled one it is what the network takes that is not compiled, which is more.

    Raises:
        DataError: The data set is missing: its image size and classes are needed.
    """
    train, shape = settings.train, data_shape(settings.data)
    batch = max(1, train.batch_size // settings.scaling.workers)
    cost = _cost(
        settings.model,
        settings.precision,
        settings.memory,
        shape,
        batch,
        replace(train, **{name: getattr(TrainSettings, name) for name in _WITHOUT_COST}),
    )
    if settings.scaling.parallel == "ddp":
        return cost
    rest = cost.memory_bytes - cost.activation_bytes
    return replace(cost, memory_bytes=cost.activation_bytes + rest // settings.scaling.workers)


@lru_cache(maxsize=1024)
def _cost(
    model: ModelSettings,
    precision: PrecisionSettings,
    memory: MemorySettings,
    shape: DataShape,
    batch: int,
    train: TrainSettings,
) -> Cost:
    import torch

    from revmodels import measure

    dtype = torch.float64 if precision.compute == "fp64" else torch.float32
    with torch.device("meta"):
        network = network_of(model, precision, memory, shape)
        inputs = torch.empty(batch, shape.in_channels, shape.image_size, shape.image_size, dtype=dtype)
        targets = torch.empty(batch, dtype=torch.long)
    use = measure.predict_memory(
        network, (inputs, targets), lambda parameters: make_optimizer(network, train, parameters)
    )
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Cost(parameters=trained, memory_bytes=use.total_bytes, activation_bytes=use.activation_bytes)


def count_parameters(settings: TrialSettings) -> int:
    """Return the trainable parameters of a trial's network, which is built without memory; equal ones are
    built once.

    Raises:
        DataError: The data set is missing: its image size and classes are needed.
    """
    return _count(settings.model, settings.precision, settings.memory, data_shape(settings.data))


@lru_cache(maxsize=1024)
def _count(
    model: ModelSettings, precision: PrecisionSettings, memory: MemorySettings, shape: DataShape
) -> int:
    import torch

    with torch.device("meta"):
        network = network_of(model, precision, memory, shape)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
