"""Follows every storage that operations return, from its creation to its release."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from revmodels.memory.recurrent import (
    LAYER,
    LAYER_BACKWARD,
    WORKSPACE,
    with_two_bias_gradients,
    workspace_bytes,
)
from revmodels.torch_internals import TorchDispatchMode, storage_key, tree_leaves

SUMMED_IN_PLACE = (torch.ops.aten.mse_loss.default, torch.ops.aten.smooth_l1_loss.default)
"""Losses whose sum stays in the storage that held a number for every element."""


_category: ContextVar[str | None] = ContextVar("category", default=None)


@contextmanager
def counted_as(category: str) -> Iterator[None]:
    """A context in which every tracker counts new storages under `category`."""
    token = _category.set(category)
    try:
        yield
    finally:
        _category.reset(token)


class Tracker(TorchDispatchMode):
    """Follows the storages that operations return, by category, and remembers the peaks.

    Attributes:
        category: what a new storage counts as.
        held: bytes alive now, per category.
        peak: largest sum over all categories.
        peak_activation: largest ``held["activation"]``.
        peak_offloaded: largest ``held["offloaded"]``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.category = "activation"
        self.held: dict[str, int] = {}
        self.peak = 0
        self.peak_activation = 0
        self.peak_offloaded = 0
        self._live: dict[int, tuple[weakref.ref, int, str]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is LAYER_BACKWARD:
            out = with_two_bias_gradients(out)
        category = _category.get() or self.category
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                size = None
                if (
                    func is torch.ops.aten.native_batch_norm.default
                    and leaf is not out[0]
                    and args[1] is not None
                ):
                    # Fake kernels give the batch statistics the dtype of the input; they have the weight's.
                    size = leaf.numel() * args[1].element_size()
                elif func is LAYER and leaf is out[WORKSPACE]:
                    size = workspace_bytes(args, out)
                elif func in SUMMED_IN_PLACE:
                    # Fake kernels give the sum the storage of one number.
                    size = args[0].numel() * leaf.element_size()
                self.follow(leaf, category, move=False, size=size)
        return out

    def follow(self, tensor: Tensor, category: str, *, move: bool = True, size: int | None = None) -> None:
        """Count the storage of `tensor` under `category`; move it there if it is counted elsewhere."""
        storage = tensor.untyped_storage()
        key = storage_key(tensor)
        if key in self._live:
            if not move:
                return
            self._release(key)
        reference = weakref.ref(storage, lambda _: self._release(key))
        size = storage.nbytes() if size is None else size
        self._live[key] = (reference, size, category)
        self.held[category] = self.held.get(category, 0) + size
        self.peak = max(self.peak, sum(self.held.values()))
        self.peak_activation = max(self.peak_activation, self.held.get("activation", 0))
        self.peak_offloaded = max(self.peak_offloaded, self.held.get("offloaded", 0))

    def _release(self, key: int) -> None:
        entry = self._live.pop(key, None)
        if entry is not None:
            self.held[entry[2]] -= entry[1]
