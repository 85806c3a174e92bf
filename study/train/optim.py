"""Optimizers, the groups of parameters that decay, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from study.settings import TrainSettings


def parameter_groups(
    model: nn.Module, weight_decay: float, parameters: Iterable[nn.Parameter] | None = None
) -> list[dict[str, object]]:
    """Return two groups: weights of convolutions and linear layers decay, all other parameters do not.

    Source: the RevNet code decays the variables of convolution and fully connected weights alone.

    Args:
        model: Its layers decide.
        weight_decay: Of the first group.
        parameters: Those of a copy of `model`, in the same order, to be grouped in place of its own.
    """
    layers = (nn.modules.conv._ConvNd, nn.Linear)
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, layers)}
    own = list(model.parameters())
    groups: tuple[list[nn.Parameter], ...] = ([], [])
    for p, q in zip(own, own if parameters is None else parameters, strict=True):
        if p.requires_grad:
            groups[id(p) not in decayed].append(q)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def make_optimizer(
    model: nn.Module, settings: TrainSettings, parameters: Iterable[nn.Parameter] | None = None
) -> Optimizer:
    """SGD with momentum or AdamW, over `parameter_groups`: of `model`, or of a copy's parameters."""
    groups = parameter_groups(model, settings.weight_decay, parameters)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    momentum = settings.momentum
    # Without momentum there is nothing to look ahead along, and PyTorch refuses the two together.
    ahead = settings.nesterov and momentum > 0
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum, nesterov=ahead)


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one step, counted from 0.

    A linear warm-up over `warmup_epochs` reaches the peak, then: ``constant``; ``cosine`` to 0 at the end;
    ``step``, a tenth from half of all steps on and a hundredth from three quarters on (the RevNet paper's
    40,000 and 60,000 of 80,000).
    """
    total = settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total)
    peak = settings.learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if settings.schedule == "step":
        return peak * (1.0 if 2 * step < total else 0.1 if 4 * step < 3 * total else 0.01)
    return peak
