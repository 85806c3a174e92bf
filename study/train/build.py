"""From settings to a network on fresh weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from study.code import is_own
from study.network import own_network
from study.settings.model import ModelSettings
from study.settings.trial import TrialSettings
from study.tasks.task import Batch, Shape, Task

if TYPE_CHECKING:
    from revmodels.coupling.linear import Coupling


def build_model(settings: TrialSettings, shape: Shape) -> nn.Module:
    """The trial's network with weights from the global random generator, on the default device."""
    import revmodels

    model, memory = settings.model, settings.memory
    if is_own("model.name", model.name):
        return own_network(settings, shape)
    # Networks for images have no such option.
    scheme: dict[str, Any] = (
        {} if model.parametrization == "standard" else {"parametrization": model.parametrization}
    )
    return revmodels.create_model(
        model.name,
        **shape.preset_options,
        **scheme,
        width=model.width,
        depth=model.depth,
        coupling=coupling_of(model),
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


def coupling_of(model: ModelSettings) -> Coupling | None:
    """Return the rule that joins the streams of a network; None leaves them to the network.

    Args:
        model: The settings of the network, with its coupling and the numbers of that.

    Returns:
        The rule, of the numbers that are given and the defaults of the others.

    Raises:
        CouplingError: There is no such coupling, or it has no such numbers.
    """
    from revmodels.coupling.linear import find_coupling

    return None if model.coupling is None else find_coupling(model.coupling, **model.coupling_numbers)


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
