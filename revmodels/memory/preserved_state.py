"""Run something on a model and leave no trace: buffers, gradients, parameters and generators as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """A context after which the generators of CPU and `device`, Python and NumPy are where they were."""
    # NumPy draws nothing where it was not imported.
    numpy = sys.modules.get("numpy.random")
    pythons, numpys = random.getstate(), None if numpy is None else numpy.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
            yield
    finally:
        random.setstate(pythons)
        if numpy is not None:
            numpy.set_state(numpys)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """A context after which every buffer of `model` has its former values."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in kept:
                buffer.copy_(values)


@contextmanager
def training_kept(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """A context in which `model` may be trained, and after which it never was.

    Parameters and optimizer state are kept in host memory meanwhile, so that a device's memory is not
    doubled. The gradients are taken away for the duration and put back.
    """
    parameters = [(p, p.detach().to("cpu", copy=True), p.grad) for p in model.parameters()]
    states = {p: {k: _copy(v) for k, v in state.items()} for p, state in optimizer.state.items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    for p, _, _ in parameters:
        p.grad = None
    try:
        with buffers_kept(model):
            yield
    finally:
        with torch.no_grad():
            for p, values, gradient in parameters:
                p.copy_(values)
                p.grad = gradient
        optimizer.state.clear()
        optimizer.state.update(states)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def _copy(value: object) -> object:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
