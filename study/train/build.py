"""From settings to a network on fresh weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from study.code import is_own
from study.network import own_network
from study.settings.trial import TrialSettings
from study.tasks.task import Batch, Shape, Task


def build_model(settings: TrialSettings, shape: Shape) -> nn.Module:
    """The trial's network with weights from the global random generator, on the default device."""
    import revmodels

    model, memory = settings.model, settings.memory
    if is_own("model.name", model.name):
        return own_network(settings, shape)
    return revmodels.create_model(
        model.name,
        **shape.preset_options,
        width=model.width,
        depth=model.depth,
        strategy=memory.strategy,
        anchor_every=memory.anchor_every,
        memory_budget_bytes=memory.memory_budget_bytes,
        precision=revmodels.Precision(**asdict(settings.precision)),
    )


def network_settings(settings: TrialSettings, **others: Any) -> TrialSettings:
    """What the network of a trial follows from, and all else at its default: equal networks have equal ones.

    Args:
        settings: Of the trial.
        others: Further sections that count.

    Returns:
        The settings, a key for what is computed once.
    """
    return replace(
        TrialSettings(),
        model=settings.model,
        precision=settings.precision,
        memory=settings.memory,
        code=settings.code,
        **others,
    )


def outline(settings: TrialSettings, task: Task, shape: Shape, count: int) -> tuple[nn.Module, Batch]:
    """The network as its task calls it, and a batch of `count` examples, both on the meta device."""
    with torch.device("meta"):
        return task.adapted(build_model(settings, shape)), task.blank(shape, count, settings)


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
