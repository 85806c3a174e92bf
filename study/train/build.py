"""From settings to a network on fresh weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from study.data.load import DataShape
from study.settings import MemorySettings, ModelSettings, PrecisionSettings, TrialSettings


def build_model(settings: TrialSettings, shape: DataShape) -> nn.Module:
    """The trial's network with weights from the global random generator, on the default device."""
    return network_of(settings.model, settings.precision, settings.memory, shape)


def network_of(
    model: ModelSettings, precision: PrecisionSettings, memory: MemorySettings, shape: DataShape
) -> nn.Module:
    """The network of three sections of a trial's settings, on the default device."""
    import revmodels

    return revmodels.create_model(
        model.name,
        num_classes=shape.num_classes,
        in_channels=shape.in_channels,
        width=model.width,
        depth=model.depth,
        stem=shape.stem,
        strategy=memory.strategy,
        anchor_every=memory.anchor_every,
        memory_budget_bytes=memory.memory_budget_bytes,
        precision=revmodels.Precision(**asdict(precision)),
    )


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
