"""Keeping activations in 8 bits: what a unit saves for its backward pass is rounded, the forward pass is not.

Numbers are rounded in groups of 64 that share a scale, as in ActNN (Chen et al. 2021) and GACT (Liu et al.
2022); to the nearest, so that no random numbers are drawn. ``int8`` has 127 equal steps up to the largest
number of a group, ``float8_e4m3fn`` (COAT, Xi et al. 2024) 3 bits of mantissa and so the same relative error
for large and small ones. In a group of 64 normal numbers the first is the more exact.

The loss is that of storing. Gradients are not: `Quantized.tolerance` says how far off they may be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar

from revmodels.errors import StrategyError, one_of
from revmodels.strategies.packing import Packed, Packing, run_packed
from revmodels.strategies.strategy import ForwardPass, Strategy, Streams

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 64
"""Numbers that share a scale."""

SMALL = 16
"""A tensor with less than one number for so many of a stream is a statistic (a mean, a logarithm of a sum) on
which many others depend: it is kept exactly."""

LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0}
"""The largest number of each format."""

_format: ContextVar[str] = ContextVar("saved_format", default="int8")


class Quantized(Strategy):
    """Every activation is kept in 8 bits."""

    name = "quantized"
    summary = "Keeps every activation in 8 bits; nothing is computed twice, and gradients are approximate."
    recomputes = False
    settings: ClassVar = {"saved_format": "int8"}
    compiles = False
    tolerance = 0.05

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn; see `Strategy.run`."""
        return run_packed(self.name, _To8Bits(_format.get()), forward, *streams)

    @contextlib.contextmanager
    def session(self, **settings: object) -> Iterator[None]:
        """A context in which forward passes keep activations in another format.

        Args:
            settings: ``saved_format``, ``int8`` or ``float8_e4m3fn``; None or none is ``int8``.

        Raises:
            StrategyError: there is no such format.
        """
        wanted = self.resolved({"saved_format": None, **settings})["saved_format"]
        if wanted not in LARGEST:
            raise StrategyError(f"saved_format: {one_of(wanted, LARGEST)}")
        token = _format.set(wanted)
        try:
            yield
        finally:
            _format.reset(token)


class _To8Bits(Packing):
    def __init__(self, name: str) -> None:
        self._name = name

    def is_worth_it(self, tensor: Tensor, stream: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.numel() * SMALL >= stream.numel() > 0

    def pack(self, tensor: Tensor) -> Packed:
        return _In8Bits(tensor, self._name)


class _In8Bits(Packed):
    """Whole numbers, or floats of 8 bits, and a scale in float32 for each group."""

    def __init__(self, tensor: Tensor, name: str) -> None:
        import torch

        # Dense, in the order of the dimensions of the original.
        dense = torch.empty_like(tensor).copy_(tensor) if _has_gaps(tensor) else tensor
        self._shape, self._strides, self._dtype = dense.shape, dense.stride(), dense.dtype
        groups = _in_groups(dense)
        self._scale = groups.abs().amax(dim=1, keepdim=True).float() / LARGEST[name]
        steps = groups / self._scale.where(self._scale != 0, 1.0)
        if name != "int8":
            self._numbers = steps.to(getattr(torch, name))
            return
        # What is not zero stays so, with its sign: ReLU's backward asks which results were positive.
        signs = steps.sign().to(torch.int8)
        self._numbers = steps.round_().to(torch.int8)
        self._numbers += signs * (self._numbers == 0)

    def unpacked(self) -> Tensor:
        numbers = (self._numbers.to(self._scale.dtype) * self._scale).to(self._dtype).flatten()
        return numbers.as_strided(self._shape, self._strides)


def _has_gaps(tensor: Tensor) -> bool:
    """Whether there is memory between its numbers, or several share one place."""
    expected = 1
    dimensions = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted(pair for pair in dimensions if pair[1] > 1):
        if stride != expected:
            return True
        expected *= size
    return False


def _in_groups(dense: Tensor) -> Tensor:
    """Its numbers as they lie in memory, in rows of `GROUP`, the last of which is filled up with zeros."""
    from torch.nn.functional import pad

    flat = dense.as_strided((dense.numel(),), (1,))
    missing = -dense.numel() % GROUP
    return (pad(flat, (0, missing)) if missing else flat).view(-1, GROUP)
