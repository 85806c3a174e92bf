"""Exact multiplication by a number other than ±1: what the division drops is kept as side information.

Streams on the grid of `revmodels.coupling.grid` are whole numbers X of steps of 2^-k. For the size n/d of a
coupling's alpha, a ratio of whole numbers::

    X = d q + p        floor(n X / d) = n q + m        m = floor(n p / d)        0 <= p < d

Of a stream that was multiplied, q and m are still there, and p is one of at most ceil(d/n) neighbours. Which
one it is takes ceil(log2(ceil(d/n))) bits for each number: none where abs(alpha) is 1 or more, and one where
it is ½ or more. So every such coupling has an inverse bit for bit. (The idea is that of Maclaurin et al.
2015, who keep the digits of a whole training; for abs(alpha) = ½ it is the bit of BDIA, arXiv 2407.09093.)

All numbers are whole and small enough for the streams' own type, so nothing here rounds.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from revmodels.coupling.grid import to_grid

LARGEST = 256
"""Of the two numbers of a ratio: their product has to be a whole number of float32 with room to spare."""


class Ratio(NamedTuple):
    """The size of alpha as a ratio of whole numbers: `over` / `under`, in lowest terms."""

    over: int
    under: int

    @property
    def bits(self) -> int:
        """Bits that are kept for each number that is multiplied: 0, 1, 2, 4 or 8."""
        needed = (-(-self.under // self.over) - 1).bit_length()
        return next(bits for bits in (0, 1, 2, 4, 8) if bits >= needed)


@lru_cache(maxsize=1024)
def ratio_of(alpha: float) -> Ratio | None:
    """Return ``abs(alpha)`` as a ratio of whole numbers of at most `LARGEST`; None if it is none.

    >>> ratio_of(-0.9)
    Ratio(over=9, under=10)
    """
    found = Fraction(abs(alpha)).limit_denominator(LARGEST)
    if found.numerator > LARGEST or found.numerator / found.denominator != abs(alpha):
        return None
    return Ratio(found.numerator, found.denominator)


class _Multiplied(torch.autograd.Function):
    """``alpha x``, rounded down in size to the grid; the gradient is that of the product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float | Tensor, ratio: Ratio, bits: int) -> Tensor:
        ctx.alpha = alpha
        q, p = _divided(x * 2.0**bits, ratio.under)
        whole = q.mul_(ratio.over).add_(_quotient(p * ratio.over, ratio.under))
        return whole.mul_(2.0**-bits) * _sign(alpha)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None, None, None]:
        return d * ctx.alpha, None, None, None


def combine_kept(
    numbers: tuple[float | Tensor, ...], ratio: Ratio, bits: int, x: Tensor, z: Tensor, r: Tensor
) -> Tensor:
    """``alpha x + beta z + scale r`` on the grid of 2^-`bits`; the last two terms are rounded together.

    Args:
        numbers: the three of them. An alpha of 0 leaves `x` out.
        ratio: the size of alpha.
        bits: k of the grid.
        x: the stream that is updated, on the grid.
        z: the other, of the same shape and dtype, on the grid.
        r: the value of F or G.

    Returns:
        The updated stream, on the grid. Gradients are those of the formula, without rounding.
    """
    alpha, rest = numbers[0], _rest(numbers, z, r, bits)
    if not isinstance(alpha, Tensor) and alpha == 0:
        return rest
    return _Multiplied.apply(x, alpha, ratio, bits) + rest


def separate_kept(
    numbers: tuple[float | Tensor, ...],
    ratio: Ratio,
    bits: int,
    y: Tensor,
    z: Tensor,
    r: Tensor,
    kept: Tensor | None,
) -> Tensor:
    """The ``x`` of ``y = combine_kept(numbers, ratio, bits, x, z, r)``, bit for bit.

    Args:
        numbers: the three of them; alpha is not 0.
        ratio: the size of alpha.
        bits: k of the grid.
        y: the updated stream.
        z: the other.
        r: the value of F or G.
        kept: what `dropped` returned for `x`.

    Returns:
        The stream before, in memory of its own.
    """
    whole = (y - _rest(numbers, z, r, bits)) * _sign(numbers[0])
    q, m = _divided(whole.mul_(2.0**bits), ratio.over)
    p = _first(m, ratio)
    if kept is not None:
        p += _unpacked(kept, ratio.bits, y)
    return q.mul_(ratio.under).add_(p).mul_(2.0**-bits)


def dropped(x: Tensor, ratio: Ratio, bits: int) -> Tensor | None:
    """Return the bits that multiplying by `ratio` drops of `x`; None if it drops none.

    Args:
        x: a stream on the grid.
        ratio: the size of alpha.
        bits: k of the grid.

    Returns:
        Bytes, in one dimension: `Ratio.bits` bits for each number.
    """
    if not ratio.bits:
        return None
    p = torch.remainder(x * 2.0**bits, ratio.under)
    p -= _first(_quotient(p * ratio.over, ratio.under), ratio)
    each = 8 // ratio.bits
    flat = p.reshape(-1).to(torch.uint8)
    places = torch.nn.functional.pad(flat, (0, -len(flat) % each)).view(-1, each)
    found = places[:, 0].clone()
    for place in range(1, each):
        found |= places[:, place] << place * ratio.bits
    return found


def _unpacked(kept: Tensor, bits: int, like: Tensor) -> Tensor:
    places = torch.arange(0, 8, bits, dtype=torch.uint8, device=kept.device)
    flat = (kept[:, None] >> places & (1 << bits) - 1).view(-1)[: like.numel()]
    return torch.empty_like(like).copy_(flat.view(like.shape))


def _rest(numbers: tuple[float | Tensor, ...], z: Tensor, r: Tensor, bits: int) -> Tensor:
    _, beta, scale = numbers
    return to_grid(z * beta + r * scale, bits)


def _divided(whole: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of whole numbers, both without rounding: the remainder of floats is exact."""
    remainder = torch.remainder(whole, by)
    return (whole - remainder).div_(by), remainder


def _quotient(whole: Tensor, by: int) -> Tensor:
    return torch.floor(whole / by)


def _first(m: Tensor, ratio: Ratio) -> Tensor:
    """The least p with ``floor(over p / under) = m``."""
    return torch.ceil(m * ratio.under / ratio.over)


def _sign(alpha: float | Tensor) -> float | Tensor:
    return torch.sign(alpha) if isinstance(alpha, Tensor) else math.copysign(1.0, alpha)
