"""What must be the same when a residual function runs a second time, in the backward pass.

Two things outside its arguments and its module decide what it computes: the autocast state and the random
numbers that it draws. The forward pass records both, and the replay restores them and leaves the caller's own
state as it was. `revmodels.running_statistics` sees to it that running statistics move once a step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from revmodels.torch_internals import (
    FakeTensor,
    is_autocast_enabled,
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
            if _content(self.cpu) != _content(other.cpu):
                return False
            if self.accelerator is None or other.accelerator is None:
                return True
            return _content(self.accelerator) == _content(other.accelerator)

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


def _content(state: Tensor) -> bytes:
    """The bytes of a generator's state, which lie in the memory of the CPU in one piece."""
    return ctypes.string_at(state.data_ptr(), state.numel())
