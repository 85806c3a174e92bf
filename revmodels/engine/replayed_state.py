"""What must be the same when a residual function runs a second time, in the backward pass.

Three things outside its arguments decide what a module computes: the autocast state, the random numbers it
draws, and whether batch norm moves its running statistics. The forward pass records the first two and the
replay restores them, leaving the caller's own state as it was; the third is switched off in a replay, so
that running statistics move once per step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from revmodels.torch_internals import (
    BatchNorm,
    FakeTensor,
    is_autocast_enabled,
    own_buffers,
    without_dispatch_modes,
)


@dataclass(frozen=True)
class Autocast:
    """The autocast state of one device type, as the forward pass found it."""

    device_type: str
    enabled: bool
    dtype: torch.dtype
    cache: bool

    @classmethod
    def current(cls, device_type: str) -> Autocast:
        """Read the state that is in force now."""
        if not torch.amp.is_autocast_available(device_type):
            return cls(device_type, False, torch.float32, False)
        return cls(
            device_type,
            torch.is_autocast_enabled(device_type),
            torch.get_autocast_dtype(device_type),
            torch.is_autocast_cache_enabled(),
        )

    def restored(self) -> AbstractContextManager:
        """A context in which this state is in force again."""
        if not self.enabled and not is_autocast_enabled(self.device_type):
            return nullcontext()
        return torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=self.cache
        )


@dataclass(frozen=True)
class RandomState:
    """Global generator states before a residual function ran: the CPU's and, for an accelerator, its own."""

    cpu: Tensor
    device: torch.device
    accelerator: Tensor | None

    @classmethod
    def current(cls, x: Tensor) -> RandomState | None:
        """Read the generators that a function of `x` may draw from; None for a fake `x`, which draws nothing.

        The states are bookkeeping of the engine, hidden from dispatch modes that count the network's memory.
        """
        if isinstance(x, FakeTensor):
            return None
        with without_dispatch_modes():
            accelerator = torch.cuda.get_rng_state(x.device) if x.is_cuda else None
            return cls(torch.get_rng_state(), x.device, accelerator)

    def same(self, other: RandomState) -> bool:
        """Whether nothing was drawn between the two."""
        with without_dispatch_modes():
            if not torch.equal(self.cpu, other.cpu):
                return False
            if self.accelerator is None or other.accelerator is None:
                return True
            return torch.equal(self.accelerator, other.accelerator)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A context that draws the forward pass's numbers again; the caller's generators are untouched."""
        devices = [self.device] if self.accelerator is not None else []
        with torch.random.fork_rng(devices=devices, device_type="cuda"):
            torch.set_rng_state(self.cpu)
            if self.accelerator is not None:
                torch.cuda.set_rng_state(self.accelerator, self.device)
            yield

    @staticmethod
    @contextmanager
    def kept(x: Tensor) -> Iterator[None]:
        """A context that leaves the generators of `x`'s device as they are, whatever is drawn within."""
        before = RandomState.current(x)
        try:
            yield
        finally:
            after = RandomState.current(x)
            if before is not None and after is not None and not before.same(after):
                torch.set_rng_state(before.cpu)
                if before.accelerator is not None:
                    torch.cuda.set_rng_state(before.accelerator, before.device)


def batch_norms(modules: Iterable[nn.Module]) -> list[BatchNorm]:
    """The batch norms within `modules` whose running statistics a call would move, each once."""
    found = {id(layer): layer for module in modules for layer in module.modules() if moves_statistics(layer)}
    return list(found.values())


def moves_statistics(layer: nn.Module) -> bool:
    """Whether a call of `layer` in its present mode moves the running statistics of a batch norm."""
    return isinstance(layer, BatchNorm) and layer.training and layer.track_running_stats


@contextmanager
def frozen_statistics(layers: Iterable[BatchNorm]) -> Iterator[None]:
    """A context in which `layers` normalize by batch statistics and move nothing.

    With ``track_running_stats`` off, a training-mode batch norm passes no running buffers to the same kernel,
    so the values it returns are bit for bit those of the forward pass.
    """
    layers = tuple(layers)
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


class ScratchStatistics(AbstractContextManager):
    """As `frozen_statistics`, with throw-away running buffers in place of none; it may be entered again.

    Autograd then saves as many tensors as in the forward pass, which `torch.utils.checkpoint` insists on.
    """

    def __init__(self, layers: Iterable[BatchNorm]) -> None:
        self._layers = tuple(layers)
        self._kept: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self._kept = [dict(own_buffers(layer)) for layer in self._layers]
        for layer, buffers in zip(self._layers, self._kept, strict=True):
            own_buffers(layer).update({n: None if b is None else b.clone() for n, b in buffers.items()})

    def __exit__(self, *_: object) -> None:
        for layer, buffers in zip(self._layers, self._kept, strict=True):
            own_buffers(layer).update(buffers)
        self._kept = []
