"""FSDP2: a network whose parameters, gradients and optimizer state are shared out over the workers.

Each unit is sharded by itself (`torch.distributed.fsdp.fully_shard`), so a worker holds whole parameters of
one or two units at a time. Checkpoints hold the whole state, gathered on rank 0, so that any number of
workers can go on from one. Every function here that gathers must be called by all workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as gathered
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

_WHOLE = gathered.StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard a network in place, over all workers of the process group; those of `revmodels` unit by unit."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _units(model: nn.Module) -> Iterator[nn.Module]:
    """The residual units. The engine asks that one be sharded as a whole, never F or G by itself."""
    body: Any = getattr(model, "body", None)
    if body is None:  # a network that the study brings along is sharded as a whole
        return
    yield from body.units() if hasattr(body, "units") else body


def whole_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The states ``model`` and ``optimizer`` with whole tensors, on the CPU of rank 0; empty elsewhere."""
    states = gathered.get_state_dict(model, optimizer, options=_WHOLE)
    return dict(zip(("model", "optimizer"), states, strict=True))


def load_whole_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over the states of `whole_state`, which every worker must have."""
    gathered.set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=_WHOLE,
    )


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors, on the CPU of rank 0; empty elsewhere."""
    return dict(gathered.get_model_state_dict(model, options=_WHOLE))  # type: ignore[arg-type]


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or the whole of a sharded one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
