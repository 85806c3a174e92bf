"""The fixed-point grid of exact coupling: streams in multiples of 2^-k, held in float32 or float64.

A float type with s bits of significand (24 or 53) holds every multiple of 2^-k of magnitude up to 2^(s-k). So
if both streams and the results of F and G lie on the grid, then ``x + r`` and ``y - r`` are exact, and the
inverse of equation 8 is bit for bit, as long as the streams stay below that limit and F and G give the same
value for the same input. F and G may be evaluated in any arithmetic: an input without error gives no other
rounding. (The remedy of Gomez et al. 2017, section 5.2, after Maclaurin et al. 2015.)

What is assumed: forward pass and replay use the same kernels. On a CPU that holds for convolutions, batch
norm and linear layers; attention modules in eval mode take another kernel without a graph. A kernel may also
depend on the layout in memory, so the pair that enters is made dense. On CUDA, autotuning and atomic sums
(`torch.backends.cudnn.benchmark`, `torch.use_deterministic_algorithms`) may round differently in each call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from revmodels.errors import PrecisionError, RangeError
from revmodels.torch_internals import FakeTensor

SIGNIFICAND_BITS = {torch.float32: 24, torch.float64: 53}
DEFAULT_BITS = {torch.float32: 14, torch.float64: 40}
"""k where none is chosen: float32 in steps of 6.1e-5 up to 1,024, float64 of 9.1e-13 up to 8,192."""


def grid_limit(bits: int, dtype: torch.dtype) -> float:
    """The magnitude below which sums on the grid of 2^-`bits` are exact: 2^(s - `bits`)."""
    return 2.0 ** (SIGNIFICAND_BITS[dtype] - bits)


def check_bits(bits: int | None, dtype: torch.dtype) -> int:
    """Return the k of a stream of `dtype`: `bits`, or the default of that dtype.

    Raises:
        PrecisionError: no grid fits the dtype, or not that one.
    """
    name = str(dtype).removeprefix("torch.")
    if dtype not in SIGNIFICAND_BITS:
        raise PrecisionError(
            "precision.stream: exact coupling keeps the streams on a fixed-point grid, and half precision "
            "leaves 8 or 11 bits for range and resolution together; received "
            f"a {name} stream. Use stream='fp32' or 'fp64'; F and G may still compute in bf16 or fp16."
        )
    if bits is None:
        return DEFAULT_BITS[dtype]
    largest = SIGNIFICAND_BITS[dtype] - 1
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits <= largest:
        raise PrecisionError(
            f"precision.grid_bits: a whole number from 0 to {largest} for a {name} stream, whose values then "
            f"stay below 2^({largest + 1} - grid_bits); received {bits!r}. "
            f"Leave it out for {DEFAULT_BITS[dtype]}."
        )
    return bits


class _ToGrid(torch.autograd.Function):
    """Rounding to the nearest multiple, ties to even; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
        ctx.dtype = x.dtype
        # One copy of `x` and no more: the conversion's, if there is one.
        scaled = x.mul(2.0**bits) if x.dtype == dtype else x.to(dtype).mul_(2.0**bits)
        return scaled.round_().mul_(2.0**-bits)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None, None]:
        return d.to(ctx.dtype), None, None


def to_grid(x: Tensor, bits: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return `x` in `dtype` rounded to multiples of 2^-`bits`, with the gradient of the identity.

    >>> to_grid(torch.tensor([0.3, 0.4]), bits=2)
    tensor([0.2500, 0.5000])
    """
    return _ToGrid.apply(x, bits, dtype or x.dtype)


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
    """

    def __init__(self, bits: int, dtype: torch.dtype) -> None:
        self.bits = bits
        self.dtype = dtype
        self._blocks: list[int] = []
        self._ends: list[Tensor] = []
        self._summary: Tensor | None = None
        self._seen: Range | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Extent:
        """A copied network has seen nothing yet."""
        return Extent(self.bits, self.dtype)

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
        beyond = ~(values < grid_limit(self.bits, self.dtype))
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
        limit = grid_limit(self.bits, self.dtype)
        self._seen = Range(value=value, block=self._blocks[int(first)], limit=limit, grid_bits=self.bits)
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


def one_grid(grids: Iterable[int | None]) -> int | None:
    """Return the k that all units of a sequence share; None if they are additive.

    Raises:
        PrecisionError: they differ.
    """
    found = set(grids)
    if len(found) > 1:
        names = sorted("additive" if k is None else f"exact with grid_bits={k}" for k in found)
        raise PrecisionError(
            "coupling: the inverse is exact only if every unit of a sequence keeps the same grid; received "
            f"{' and '.join(names)}. Give all units one coupling, as ReversibleSequence.set_precision does."
        )
    return next(iter(found), None)
