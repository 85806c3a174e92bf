"""What `offload` and `quantized` share: every tensor that a unit saves for its backward pass is packed.

PyTorch hands what it saves to a pair of functions (`torch.autograd.graph.saved_tensors_hooks`). Parameters
and buffers are there anyway and are saved as they are; so is what is small. What is saved by several
operations is packed once.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING

from revmodels.errors import CompileError, ReplayError
from revmodels.strategies.strategy import ForwardPass, Streams

if TYPE_CHECKING:
    from torch import Tensor, nn


class Packed(ABC):
    """A tensor in another form, from which the backward pass has it again."""

    @abstractmethod
    def unpacked(self) -> Tensor:
        """The tensor, of its former shape, dtype and device."""


class Packing(ABC):
    """How tensors are packed; one is made for each forward pass."""

    @abstractmethod
    def is_worth_it(self, tensor: Tensor, stream: Tensor) -> bool:
        """Whether `tensor`, which a unit saves that receives `stream`, is packed at all."""

    @abstractmethod
    def pack(self, tensor: Tensor) -> Packed:
        """The form in which `tensor`, of any shape and dtype that is worth it, is kept."""


class _AsItIs(Packed):
    """A tensor that is not packed. Autograd does not watch it any more, so its version is watched here."""

    def __init__(self, tensor: Tensor) -> None:
        from revmodels.torch_internals import version

        # A tensor of its own: one with a graph would keep the graph that keeps it.
        self._tensor = tensor.detach()
        self._version = version(tensor)

    def unpacked(self) -> Tensor:
        from revmodels.torch_internals import version

        if version(self._tensor) != self._version:
            raise ReplayError(
                f"one of the tensors that the backward pass needs, of shape {tuple(self._tensor.shape)}, was "
                "modified by an inplace operation since the forward pass. Change a copy of it, or change it "
                "after the backward pass."
            )
        return self._tensor


class Packer:
    """The pair of functions for one unit.

    Args:
        packing: how tensors are packed.
        unit: whose saved tensors these are.
        stream: what it receives.
    """

    def __init__(self, packing: Packing, unit: nn.Module, stream: Tensor) -> None:
        self._packing = packing
        self._unit = unit
        self._stream = stream
        self._own: frozenset[int] | None = None
        # Autograd holds this object as long as what it has packed, so it must not hold that in turn.
        self._known: dict[Hashable, tuple[weakref.ref, weakref.ref[Packed]]] = {}

    def pack(self, tensor: Tensor) -> Packed:
        """What is kept in place of `tensor`."""
        from revmodels.torch_internals import storage_key, version

        if not self._packing.is_worth_it(tensor, self._stream) or storage_key(tensor) in self._storages():
            return _AsItIs(tensor)
        storage = tensor.untyped_storage()
        layout = tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
        key = storage_key(tensor), *layout, version(tensor)
        known = self._known.get(key)
        if known is not None and known[0]() is storage and (packed := known[1]()) is not None:
            return packed
        packed = self._packing.pack(tensor.detach())
        self._known[key] = weakref.ref(storage), weakref.ref(packed)
        return packed

    def _storages(self) -> frozenset[int]:
        # Asked for when the unit runs: sharded parameters are gathered when it is called.
        if self._own is None:
            from revmodels.torch_internals import storage_key

            own = (*self._unit.parameters(), *self._unit.buffers())
            self._own = frozenset(storage_key(t) for t in own)
        return self._own


def run_packed(name: str, packing: Packing, forward: ForwardPass, *streams: Tensor) -> Streams:
    """Apply the units in turn, with what each saves packed.

    Args:
        name: of the strategy, for messages.
        packing: how tensors are packed.
        forward: the units.
        streams: what enters the first unit.

    Returns:
        What the last unit returns.

    Raises:
        CompileError: `torch.compile` traces this.
    """
    import torch
    from torch.autograd.graph import saved_tensors_hooks

    if torch.compiler.is_dynamo_compiling():
        raise CompileError(
            f"strategy={name!r} packs what autograd saves, and a compiled graph decides by itself what it "
            "saves. Call the network without torch.compile, or use strategy='compile' or 'reverse'."
        )
    for index, unit in enumerate(forward.units):
        packer = Packer(packing, unit, streams[0])
        with saved_tensors_hooks(packer.pack, _unpacked):
            streams = forward.apply(unit, *streams)
        forward.see(index, streams)
    return streams


def _unpacked(packed: Packed) -> Tensor:
    return packed.unpacked()
