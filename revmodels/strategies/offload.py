"""Offloading: what a unit saves for its backward pass is moved to host memory, and fetched when it is needed.

On CUDA both copies run on a stream of their own, to and from pinned memory. The forward pass goes on
meanwhile, and the backward pass fetches what it needs next while it computes. On a CPU there is nowhere to
move it to: saved tensors are copied within the same memory, which saves nothing and shows the bytes and the
numbers. Measurements count what was moved apart from activations (`MemoryUse.offloaded_bytes`).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from revmodels.strategies.packing import Packed, Packing, run_packed
from revmodels.strategies.strategy import ForwardPass, Strategy, Streams

if TYPE_CHECKING:
    from torch import Tensor

LEAST_BYTES = 1_024
"""What is smaller stays where it is."""

AHEAD = 8
"""Tensors that the backward pass fetches before it needs them."""


class Offload(Strategy):
    """Every activation is kept, in host memory."""

    name = "offload"
    summary = "Keeps every activation in host memory; nothing is computed twice."
    recomputes = False
    compiles = False

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn; see `Strategy.run`."""
        return run_packed(self.name, _ToHost(), forward, *streams)


class _ToHost(Packing):
    """Moves tensors; knows those of one forward pass in their order, to fetch them in the reverse of it."""

    def __init__(self) -> None:
        self.moved: list[weakref.ref[_Moved]] = []
        self.copying: Any = None

    def is_worth_it(self, tensor: Tensor, stream: Tensor) -> bool:
        return tensor.numel() * tensor.element_size() >= LEAST_BYTES

    def pack(self, tensor: Tensor) -> Packed:
        import torch

        if self.copying is None and tensor.is_cuda:
            self.copying = torch.cuda.Stream(tensor.device)
        moved = _Moved(tensor, self, len(self.moved))
        self.moved.append(weakref.ref(moved))
        return moved

    def fetch_before(self, place: int) -> None:
        """Begin to fetch the tensors that were moved just before the one at `place`."""
        for reference in reversed(self.moved[max(0, place - AHEAD) : place]):
            if (moved := reference()) is not None:
                moved.fetch()


class _Moved(Packed):
    def __init__(self, tensor: Tensor, owner: _ToHost, place: int) -> None:
        import torch

        from revmodels.memory.tracker import counted_as

        self._owner, self._place = owner, place
        self._device = tensor.device
        self._fetched: Tensor | None = None
        with counted_as("offloaded"):
            # Dense, in the order of the dimensions of the original.
            self._host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            if not tensor.is_cuda:
                self._host.copy_(tensor)
                return
        copying = owner.copying
        copying.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(copying):
            self._host.copy_(tensor, non_blocking=True)
        tensor.record_stream(copying)  # Its memory is not given to another before the copy is done.

    def fetch(self) -> None:
        """Begin to copy it back; on a CPU there is nothing to begin."""
        import torch

        if self._owner.copying is None or self._fetched is not None:
            return
        with torch.cuda.stream(self._owner.copying):
            self._fetched = self._host.to(self._device, non_blocking=True)

    def unpacked(self) -> Tensor:
        import torch

        if self._owner.copying is None:
            return torch.empty_like(self._host).copy_(self._host)
        self.fetch()
        fetched, self._fetched = self._fetched, None
        assert fetched is not None
        self._owner.fetch_before(self._place)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._owner.copying)
        fetched.record_stream(current)
        return fetched
