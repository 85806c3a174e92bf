"""Optimizers, the groups of parameters that decay, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from study.code import call, find, is_path
from study.errors import StudyError
from study.settings.train import TrainSettings
from study.train.length import Length

OPTIMIZER = "train.optimizer"


def parameter_groups(
    model: nn.Module, weight_decay: float, parameters: Iterable[nn.Parameter] | None = None
) -> list[dict[str, Any]]:
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
    """Make the optimizer over `parameter_groups`: of `model`, or of a copy's parameters.

    One of the study's own is made as ``make(groups, learning_rate, **options)``.

    Returns:
        The optimizer.

    Raises:
        StudyError: One of the study's own cannot be imported, takes other arguments, or is none.
    """
    groups = _groups(model, settings, parameters)
    if is_path(name := settings.optimizer):
        options = dict(settings.optimizer_options)
        found = call(OPTIMIZER, name, find(OPTIMIZER, name), groups, settings.learning_rate, options=options)
        if not isinstance(found, Optimizer):
            rule = f"must return a torch.optim.Optimizer, not {type(found).__name__}"
            raise StudyError(OPTIMIZER, value=name, rule=rule)
        return found
    rate, fused = settings.learning_rate, settings.fused or None
    betas = (settings.beta1, settings.beta2)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=betas, fused=fused)
    if settings.optimizer == "muon":
        return MuonWithAdamW(groups, hidden=_hidden(model, parameters), lr=rate, betas=betas)
    momentum = settings.momentum
    # Without momentum there is nothing to look ahead along, and PyTorch refuses the two together.
    ahead = settings.nesterov and momentum > 0
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=ahead, fused=fused)


def _groups(
    model: nn.Module, settings: TrainSettings, parameters: Iterable[nn.Parameter] | None
) -> list[dict[str, Any]]:
    """`parameter_groups`, or in another parametrization than the standard one those that it asks for."""
    parametrization = getattr(getattr(model, "architecture", None), "parametrization", "standard")
    if parametrization == "standard":
        return parameter_groups(model, settings.weight_decay, parameters)
    from revmodels.models.parameter_groups import parameter_groups as parametrized

    groups = parametrized(model, settings.learning_rate, weight_decay=settings.weight_decay)
    if parameters is None:
        return groups
    copies = {id(p): q for p, q in zip(model.parameters(), parameters, strict=True)}
    return [{**group, "params": [copies[id(p)] for p in group["params"]]} for group in groups]


def learning_rate(settings: TrainSettings, step: int, length: Length) -> float:
    """Return the learning rate of one step, counted from 0.

    A linear warm-up over `warmup_epochs` or `warmup_steps` reaches the peak, then: ``constant``; ``cosine``
    and ``linear`` to 0 at the end; ``wsd``, constant until the last `decay_fraction` of all steps, in which
    it falls to 0 in a line (Hagele et al. 2024, arXiv 2405.18392); ``step``, a tenth from half of all steps
    on and a hundredth from three quarters on (the RevNet paper's 40,000 and 60,000 of 80,000).
    """
    total, peak = length.steps, settings.learning_rate
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = round(settings.warmup_epochs * length.steps_per_epoch)
    warmup = min(warmup, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if settings.schedule == "linear":
        return peak * (total - step) / max(1, total - warmup)
    if settings.schedule == "wsd":
        decay = max(1, min(round(settings.decay_fraction * total), total - warmup))
        return peak * min(1.0, (total - step) / decay)
    if settings.schedule == "step":
        return peak * (1.0 if 2 * step < total else 0.1 if 4 * step < 3 * total else 0.01)
    return peak


def _hidden(model: nn.Module, parameters: Iterable[nn.Parameter] | None) -> set[int]:
    """Ids of the matrices of linear layers outside the head, which Muon is for."""
    own = list(model.parameters())
    inner = {
        id(m.weight)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and name.partition(".")[0] != "head"
    }
    pairs = zip(own, own if parameters is None else parameters, strict=True)
    return {id(q) for p, q in pairs if id(p) in inner}


class MuonWithAdamW(Optimizer):
    """Muon for the matrices of hidden layers, AdamW for everything else, behind one state.

    Muon's steps are scaled to the size of AdamW's, so that one learning rate serves both (Liu et al. 2025,
    arXiv 2502.16982).

    Args:
        groups: Parameters with their ``weight_decay``.
        hidden: Ids of the parameters that Muon takes.
        lr: The learning rate.
        betas: Of AdamW.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, hidden: set[int], lr: float, betas: tuple[float, float]
    ) -> None:
        def those(inside: bool) -> list[dict[str, Any]]:
            parts = [{**g, "params": [p for p in g["params"] if (id(p) in hidden) == inside]} for g in groups]
            return [part for part in parts if part["params"]]

        matrices, others = those(True), those(False)
        self._optimizers: list[Optimizer] = []
        if matrices:
            self._optimizers.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._optimizers.append(torch.optim.AdamW(others, lr=lr, betas=betas))
        super().__init__([group for one in self._optimizers for group in one.param_groups], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step with each of the two, on the one state of both."""
        first = 0
        for one in self._optimizers:
            count = len(one.param_groups)
            one.param_groups = self.param_groups[first : first + count]
            one.state = self.state
            one.step()
            first += count
