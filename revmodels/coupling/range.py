"""How far the streams of an exact coupling went, against how far its fixed-point grid lets them go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from revmodels.errors import RangeError
from revmodels.grid_bits import grid_limit
from revmodels.torch_internals import FakeTensor


@dataclass(frozen=True, kw_only=True)
class Range:
    """How far the streams went, against how far they may go.

    Attributes:
        value: largest magnitude in either stream; not finite if anything was not.
        block: position of the first block beyond the limit or, if none is, of the block with the largest
            value; -1 stands for the input of the first block.
        limit: the magnitude to stay below.
        grid_bits: k.
    """

    value: float
    block: int
    limit: float
    grid_bits: int

    @property
    def overflowed(self) -> bool:
        """Whether an inverse may have been inexact. A NaN is beyond every limit."""
        return not self.value < self.limit

    @property
    def fitting_bits(self) -> int | None:
        """The largest k that would hold `value`; None if it is not finite or no k does."""
        if not math.isfinite(self.value):
            return None
        significand = self.grid_bits + round(math.log2(self.limit))
        bits = significand - (math.frexp(self.value)[1] if self.value else 0)
        return min(bits, significand - 1) if bits >= 0 else None


class Extent:
    """Largest magnitudes of the pairs of one forward pass, kept on the device until they are read.

    Args:
        bits: k of the grid.
        dtype: of the streams.
        reach: how far a sum within a coupling goes beyond the streams: 1 + abs(beta). They must stay below
            the limit of the grid by so much, rounded up to a power of two.
    """

    def __init__(self, bits: int, dtype: torch.dtype, reach: float = 1.0) -> None:
        self.bits = bits
        self.dtype = dtype
        self.reach = reach
        self.limit = grid_limit(bits, dtype) / 2 ** math.ceil(math.log2(reach))
        self.side_bytes = 0
        """Of the side information that units keep to be inverted exactly."""
        self._blocks: list[int] = []
        self._ends: list[Tensor] = []
        self._summary: Tensor | None = None
        self._seen: Range | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Extent:
        """A copied network has seen nothing yet."""
        return Extent(self.bits, self.dtype, self.reach)

    @torch.no_grad()
    def see(self, block: int, *streams: Tensor) -> None:
        """Take note of the pair that a block returns."""
        self._seen = None
        for x in streams:
            self._blocks += [block, block]
            self._ends += torch.aminmax(_flat(x.detach()))

    @torch.no_grad()
    def close(self) -> None:
        """Reduce what was seen to two numbers, still on the device: what stays does not grow with depth."""
        if not self._ends:
            return
        values = torch.stack(self._ends).abs()
        self._ends.clear()
        worst = torch.where(values.isfinite(), values, math.inf).argmax()
        beyond = ~(values < self.limit)
        first = torch.where(beyond.any(), beyond.to(torch.uint8).argmax(), worst)
        self._summary = torch.stack((values.take(worst), first.to(values.dtype)))

    def read(self) -> Range | None:
        """Everything seen, in one transfer from the device. None if nothing was, or nothing with values."""
        self.close()
        if self._seen is not None:
            return self._seen
        if self._summary is None or isinstance(self._summary, FakeTensor) or self._summary.is_meta:
            return None
        value, first = self._summary.tolist()
        block = self._blocks[int(first)]
        self._seen = Range(value=value, block=block, limit=self.limit, grid_bits=self.bits)
        return self._seen

    def check(self) -> None:
        """Raise if anything seen left the range.

        Raises:
            RangeError: it did; the message names the block, the value and the k that would fit.
        """
        seen = self.read()
        if seen is not None and seen.overflowed:
            raise RangeError(seen)


def _flat(x: Tensor) -> Tensor:
    """The numbers of `x` as they lie in memory, without a copy where they lie densely."""
    stride = x.stride()
    order = sorted(range(x.dim()), key=lambda d: -stride[d])
    return x.permute(order).reshape(-1)
