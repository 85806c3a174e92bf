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

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from revmodels.errors import PrecisionError


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
