"""The numbers of a fixed-point grid: which resolutions a stream's dtype can hold, and up to which magnitude.

`revmodels.coupling.grid` keeps streams on such a grid.
"""

from __future__ import annotations

import torch

from revmodels.errors import PrecisionError

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
