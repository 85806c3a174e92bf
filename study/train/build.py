"""From settings to a model on fresh weights, and what that model will need, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from study.data.load import DataShape, data_shape
from study.settings import MemorySettings, ModelSettings, PrecisionSettings, TrainSettings, TrialSettings
from study.train.optim import make_optimizer


def build_model(settings: TrialSettings, shape: DataShape) -> nn.Module:
    """The trial's network with weights from the global random generator, on the default device."""
    return _build(settings.model, settings.precision, settings.memory, shape)


def _build(
    model: ModelSettings, precision: PrecisionSettings, memory: MemorySettings, shape: DataShape
) -> nn.Module:
    import revmodels
    from study.train.compiled import COMPILE
    from study.train.recompute import RECURSIVE, recursive

    stores = memory.strategy in (RECURSIVE, COMPILE)
    network = revmodels.create_model(
        model.name,
        num_classes=shape.num_classes,
        in_channels=shape.in_channels,
        width=model.width,
        depth=model.depth,
        stem=shape.stem,
        strategy="store" if stores else memory.strategy,
        anchor_every=memory.anchor_every,
        precision=revmodels.Precision(**asdict(precision)),
    )
    return recursive(network) if memory.strategy == RECURSIVE else network


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a trial's model takes: trainable parameters, and bytes of one training step on one worker."""

    parameters: int
    memory_bytes: int
    activation_bytes: int


def trial_cost(settings: TrialSettings) -> Cost:
    """Parameters and predicted memory of a trial, on fake tensors; equal models are computed once.

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
        TrainSettings(
            optimizer=train.optimizer,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            channels_last=train.channels_last,
        ),
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
    from revmodels import measure

    dtype = torch.float64 if precision.compute == "fp64" else torch.float32
    with torch.device("meta"):
        network = _build(model, precision, memory, shape)
        inputs = torch.empty(batch, shape.in_channels, shape.image_size, shape.image_size, dtype=dtype)
        targets = torch.empty(batch, dtype=torch.long)
    use = measure.predict_memory(
        network, (inputs, targets), lambda parameters: make_optimizer(network, train, parameters)
    )
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Cost(parameters=trained, memory_bytes=use.total_bytes, activation_bytes=use.activation_bytes)


def count_parameters(settings: TrialSettings) -> int:
    """Trainable parameters of a trial's network, which is built without memory; equal ones are built once.

    Raises:
        DataError: The data set is missing: its image size and classes are needed.
    """
    return _count(settings.model, settings.precision, settings.memory, data_shape(settings.data))


@lru_cache(maxsize=1024)
def _count(
    model: ModelSettings, precision: PrecisionSettings, memory: MemorySettings, shape: DataShape
) -> int:
    with torch.device("meta"):
        network = _build(model, precision, memory, shape)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@contextmanager
def matmul_precision(matmul: str) -> Iterator[None]:
    """A context in which CUDA multiplies float32 in full (``ieee``) or in shortened form (``tf32``).

    PyTorch shortens convolutions by default, so full precision has to be asked for too.
    """
    cudnn: Any = torch.backends.cudnn
    switches = (torch.backends.cuda.matmul, cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = matmul
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
