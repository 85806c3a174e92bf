"""The precision policy: which arithmetic F and G use, and which type carries the two streams.

`compute` and `stream` are separate because they fail differently. Rounding inside F costs accuracy once;
rounding of the stream is what the inverse cannot undo, so it decides how exactly activations are rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revmodels.errors import PrecisionError, one_of
from revmodels.grid_bits import check_bits, grid_limit

DTYPES: dict[str, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
COUPLINGS = ("additive", "exact")
ON_OVERFLOW = ("raise", "record")
MATMULS = ("ieee", "tf32")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Arithmetic of a network.

    Args:
        compute: arithmetic of the residual functions, the stem and the head. ``fp64`` and ``fp32`` are the
            dtype of the parameters; ``bf16`` and ``fp16`` are autocast over float32 parameters.
        stream: dtype of the pair (x1, x2) between units.
        coupling: ``additive``, equations 6 to 8 of the RevNet paper (Gomez et al., 2017); or ``exact``, the
            same on a fixed-point grid, where the inverse is bit for bit (`revmodels.coupling.grid`).
        matmul: ``ieee`` or ``tf32`` products where `compute` is fp32; no effect on a CPU.
        grid_bits: k of the grid of multiples of 2^-k of ``exact``. None is 14 for an fp32 stream (steps of
            6.1e-5, values below 1,024) and 40 for an fp64 stream (9.1e-13, 8,192).
        on_overflow: what happens to an exact stream beyond that limit, where its inverse is not exact:
            ``raise`` reads one number from the device at the end of every forward pass; ``record`` leaves it
            to the reader of `ReversibleSequence.range`.

    Raises:
        PrecisionError: a name is unknown, ``tf32`` is asked of products that are not fp32, ``exact`` of a
            half-precision stream, or `grid_bits` does not fit the stream or the coupling.

    >>> print(Precision(compute="bf16", coupling="exact"))
    compute bf16, stream fp32, coupling exact (multiples of 2^-14 below 1,024), matmul ieee
    """

    compute: str = "fp32"
    stream: str = "fp32"
    coupling: str = "additive"
    matmul: str = "ieee"
    grid_bits: int | None = None
    on_overflow: str = "raise"

    def __post_init__(self) -> None:
        for field, value, allowed in (
            ("compute", self.compute, DTYPES),
            ("stream", self.stream, DTYPES),
            ("coupling", self.coupling, COUPLINGS),
            ("matmul", self.matmul, MATMULS),
            ("on_overflow", self.on_overflow, ON_OVERFLOW),
        ):
            if value not in allowed:
                raise PrecisionError(f"precision.{field}: {one_of(value, allowed)}")
        if self.matmul == "tf32" and self.compute != "fp32":
            raise PrecisionError(
                f"precision.matmul: tf32 shortens the products of fp32 arithmetic, and compute is "
                f"{self.compute!r}. Use matmul='ieee', or compute='fp32'."
            )

        if self.coupling == "exact":
            check_bits(self.grid_bits, self.stream_dtype)
        elif self.grid_bits is not None:
            raise PrecisionError(
                f"precision.grid_bits: only coupling='exact' has a grid, and coupling is {self.coupling!r}; "
                f"received {self.grid_bits!r}. Leave it out, or use coupling='exact'."
            )

    def __str__(self) -> str:
        """All of it in one line, with the grid spelled out."""
        coupling = self.coupling
        if coupling == "exact":
            bits = check_bits(self.grid_bits, self.stream_dtype)
            limit = grid_limit(bits, self.stream_dtype)
            coupling += f" (multiples of 2^-{bits} below {limit:,.0f})"
        return f"compute {self.compute}, stream {self.stream}, coupling {coupling}, matmul {self.matmul}"

    @property
    def parameter_dtype(self) -> torch.dtype:
        """Dtype the parameters are kept in: float64 for fp64 arithmetic, float32 otherwise."""
        return torch.float64 if self.compute == "fp64" else torch.float32

    @property
    def stream_dtype(self) -> torch.dtype:
        """Dtype of x1 and x2."""
        return DTYPES[self.stream]

    @property
    def autocasts(self) -> bool:
        """Whether `compute` is a half-width type, reached through autocast."""
        return self.compute in ("bf16", "fp16")

    def run(self, fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Evaluate ``fn(x)`` in `compute` arithmetic; the result keeps the dtype that `fn` gives it.

        A half-width stream enters a half-width `fn` as it is; every other input is first converted to the
        dtype of the parameters.

        Returns:
            What `fn` returns for `x`.
        """
        if not (self.autocasts and x.dtype in (torch.bfloat16, torch.float16)):
            x = x.to(self.parameter_dtype)
        if not self.autocasts and not _is_autocast_on(x.device.type):
            return fn(x)
        dtype = DTYPES[self.compute] if self.autocasts else None
        with torch.autocast(x.device.type, dtype=dtype, enabled=self.autocasts):
            return fn(x)


def _is_autocast_on(device_type: str) -> bool:
    # Devices without autocast, such as ``meta``, have no state of it to ask for.
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


@dataclass(frozen=True, kw_only=True)
class HalfPrecision(Precision):
    """Half precision throughout, parameters too, as ``model.bfloat16()`` and ``model.half()`` ask for.

    `Precision` reaches half precision by autocast over float32 parameters; here nothing is converted.
    """

    def __str__(self) -> str:
        """As for `Precision`, and that the parameters are of that type too."""
        return f"{super().__str__()}, parameters {self.compute}"

    @property
    def parameter_dtype(self) -> torch.dtype:
        """The half-width type itself."""
        return DTYPES[self.compute]

    @property
    def autocasts(self) -> bool:
        """False: there is nothing to convert."""
        return False


def precision_of(dtype: torch.dtype) -> Precision:
    """The policy that follows from the dtype of a network's parameters.

    Args:
        dtype: a floating dtype.

    Returns:
        Arithmetic, streams and parameters all of that dtype, with additive coupling.

    Raises:
        PrecisionError: there is no such arithmetic.

    >>> print(precision_of(torch.float64))
    compute fp64, stream fp64, coupling additive, matmul ieee
    """
    names = {t: name for name, t in DTYPES.items()}
    if dtype not in names:
        raise PrecisionError(f"dtype of the parameters: {one_of(str(dtype), map(str, names))}")
    kind = HalfPrecision if dtype in (torch.bfloat16, torch.float16) else Precision
    return kind(compute=names[dtype], stream=names[dtype])
