"""The linear couplings: one rule of three numbers, and the table of names for it.

Each half of a block takes the pair (x, z) to (y, z), with r = F(z)::

    y = alpha x + beta z + scale r            x = (y - beta z - scale r) / alpha

The first half has x = x1, z = x2 and F; the second has x = x2, z = y1 and G. Nearly every published
reversible network is this rule:

| name | alpha | beta | scale | source |
|---|---|---|---|---|
| ``additive`` | 1 | 0 | 1 | RevNet, Gomez et al. 2017; Reformer, Rev-ViT |
| ``midpoint`` (h) | 1 | 0 | 2 h | Chang et al. 2018 |
| ``leapfrog`` (h) | -1 | 2 | h^2 | Chang et al. 2018 |
| ``damped_midpoint`` (a, h) | a | 1 - a | h | arXiv 2512.02056 |
| ``momentum`` (gamma) | -gamma | 1 + gamma | 1 - gamma | Sander et al. 2021, the velocity eliminated |
| ``bdia`` (gamma) | ±gamma | 1 ∓ gamma | 1 ± gamma | arXiv 2407.09093 |
| ``revdeq`` (b) | 1 - b | 0 | b | arXiv 2509.12917, with one module as F and G |
| ``scaled`` (factor) | factor | 0 | 1 | MEFT, 2023 |

Where alpha + beta = 1, the pair is (state before, state) of a network with one stream, and a block is two of
its layers.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from revmodels.coupling.remainders import LARGEST, Ratio, ratio_of
from revmodels.errors import CouplingError, ResidualError, one_of
from revmodels.torch_internals import FakeTensor, without_dispatch_modes


class Numbers(NamedTuple):
    """The three numbers of one half, each a number or, drawn for each sample, of shape (batch, 1, ..., 1)."""

    alpha: float | Tensor
    beta: float | Tensor
    scale: float | Tensor


ADDITIVE = Numbers(1.0, 0.0, 1.0)

TRACED = -1
"""In place of a seed: the numbers are drawn by operations that a graph records."""

SHAPED = -2
"""In place of a seed: the numbers are not drawn, since there are only shapes."""


@dataclass(frozen=True)
class Coupling:
    """``y = alpha x + beta z + scale F(z)`` in each half of a block.

    Args:
        alpha: what the stream that is updated is multiplied by; not 0, by which nobody can divide.
        beta: what the other stream is multiplied by.
        scale: what F and G are multiplied by.

    Raises:
        CouplingError: one of them is no finite number, or `alpha` is 0.

    >>> Coupling(-0.5, 1.5, 0.5).inverse_error_growth(depth=4)
    256.0
    """

    alpha: float
    beta: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta), ("scale", self.scale)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise CouplingError(f"coupling.{name}: a finite number; received {value!r}.")
            object.__setattr__(self, name, float(value))
        if self.alpha == 0:
            raise CouplingError(
                "coupling.alpha: the inverse divides by it, so it cannot be 0; received 0. Use a number that "
                "is small, whose inverse multiplies errors by 1/alpha, or an ordinary residual network."
            )
        numbers = Numbers(self.alpha, self.beta, self.scale)
        object.__setattr__(self, "_numbers", ADDITIVE if numbers == ADDITIVE else numbers)

    @property
    def keeps_grid(self) -> bool:
        """Whether sums of numbers on a fixed-point grid, and their inverse, stay on it."""
        return abs(self.alpha) == 1 and self.beta.is_integer()

    @property
    def steps_one_state(self) -> bool:
        """Whether the pair is (state before, state) of one stream: alpha + beta = 1, and beta is not 0."""
        return self.beta != 0 and math.isclose(self.alpha + self.beta, 1)

    @property
    def ratio(self) -> Ratio | None:
        """The size of alpha as a ratio of small whole numbers, with which the coupling can be exact."""
        return ratio_of(self.alpha)

    @property
    def side_bits(self) -> int:
        """Bits of side information that an exact coupling keeps for each number of both streams."""
        return 0 if self.keeps_grid or self.ratio is None else self.ratio.bits

    @property
    def why_not_exact(self) -> str:
        """The reason for which `ratio` is None."""
        return f"alpha = {self.alpha:g} is no ratio of whole numbers up to {LARGEST}"

    def has_inverse(self, training: bool) -> bool:
        """Whether the input of a block follows from its output, in training mode or in evaluation mode."""
        return True

    def seed(self, x: Tensor, training: bool) -> int | None:
        """What is drawn in a call, from the caller's generator: here nothing.

        Args:
            x: the stream that is updated.
            training: whether the block is in training mode.

        Returns:
            A number that `drawn` makes the same numbers of in the backward pass; None where none are drawn.
        """
        return None

    def drawn(self, x: Tensor, seed: int | None) -> Numbers:
        """The three numbers of one half.

        Args:
            x: the stream that is updated, of shape (batch, ...).
            seed: what `seed` returned for it.

        Returns:
            The numbers.
        """
        return self._numbers  # type: ignore[attr-defined]

    def inverse_error_growth(self, depth: int) -> float:
        """Predict how much an error in the last pair has grown when the first is rebuilt.

        It is the spectral norm of what the inverse of `depth` blocks is without F and G. It grows like
        ``abs(alpha) ** (-2 * depth)`` where alpha + beta = 1, since each block divides twice; like
        ``abs(alpha) ** -depth`` where beta is 0, since then each stream is divided once; and in proportion to
        depth for the leapfrog. F and G add what their Jacobians amplify (`revmodels.measure.lipschitz`).

        Args:
            depth: number of blocks.

        Returns:
            A factor: 1 for the additive coupling, less than 1 where alpha is greater than 1 and beta is 0;
            infinite beyond the range of floats.
        """
        return inverse_error_growth([self] * depth)


@dataclass(frozen=True)
class RandomCoupling(Coupling):
    """BDIA: ``y = gamma x + (1 - gamma) z + (1 + gamma) F(z)``, gamma a random sign for each sample and half.

    In evaluation mode gamma is 0: the block computes ``y1 = x2 + F(x2)``, ``y2 = y1 + G(y1)``, two layers of
    the ordinary residual network, which have no inverse; their input is kept if anybody differentiates them.
    (Zhang et al., "On exact bit-level reversible transformers without changing architectures", 2024.)

    Args:
        gamma: its size, above 0; ½ in the paper.
    """

    alpha: float = 0.5
    beta: float = 0.5
    scale: float = 1.5

    @classmethod
    def of(cls, gamma: float) -> RandomCoupling:
        """The coupling of this gamma."""
        return cls(alpha=gamma, beta=1 - gamma, scale=1 + gamma)

    @property
    def keeps_grid(self) -> bool:
        """False."""
        return False

    def has_inverse(self, training: bool) -> bool:
        """Whether gamma is not 0: in training mode."""
        return training

    def seed(self, x: Tensor, training: bool) -> int | None:
        """Draw the seed of one half's signs; None in evaluation mode. See `Coupling.seed`."""
        if not training:
            return None
        if torch.compiler.is_dynamo_compiling():
            return TRACED
        if isinstance(x, FakeTensor) or x.is_meta:
            return SHAPED
        with without_dispatch_modes():
            return int(torch.randint(2**62, ()))

    def drawn(self, x: Tensor, seed: int | None) -> Numbers:
        """The numbers of one half, one of each for every sample. See `Coupling.drawn`."""
        if seed is None:
            return Numbers(0.0, 1.0, 1.0)
        shape = (x.shape[0], *[1] * (x.dim() - 1))
        if seed == TRACED:
            positive = torch.rand(shape, device=x.device) < 0.5
            gamma = torch.where(positive, self.alpha, -self.alpha).to(x.dtype)
        else:
            gamma = x.new_empty(shape)
            if seed != SHAPED:
                with torch.no_grad():
                    gamma.copy_(_signs(shape, seed)).mul_(self.alpha)
        return Numbers(gamma, 1 - gamma, 1 + gamma)


def _signs(shape: tuple[int, ...], seed: int) -> Tensor:
    with without_dispatch_modes():
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(2, shape, generator=generator) * 2 - 1


def midpoint(h: float = 1.0) -> Coupling:
    """``y = x + 2 h F(z)``: the midpoint rule of step `h` (Chang et al. 2018)."""
    return Coupling(1, 0, 2 * h)


def leapfrog(h: float = 1.0) -> Coupling:
    """``y = -x + 2 z + h^2 F(z)``: the leapfrog of step `h` (Chang et al. 2018)."""
    return Coupling(-1, 2, h * h)


def damped_midpoint(a: float = 0.5, h: float = 1.0) -> Coupling:
    """``y = a x + (1 - a) z + h F(z)`` (arXiv 2512.02056); the inverse divides errors by a, twice a block."""
    return Coupling(a, 1 - a, h)


def momentum(gamma: float = 0.9) -> Coupling:
    """``y = -gamma x + (1 + gamma) z + (1 - gamma) F(z)`` (Sander et al. 2021), the velocity eliminated."""
    return Coupling(-gamma, 1 + gamma, 1 - gamma)


def bdia(gamma: float = 0.5) -> Coupling:
    """``y = g x + (1 - g) z + (1 + g) F(z)``, g = ±`gamma` drawn a sample and half, 0 in evaluation."""
    return RandomCoupling.of(gamma)


def revdeq(b: float = 0.5) -> Coupling:
    """``y = (1 - b) x + b F(z)`` (arXiv 2509.12917); give a block one module as F and G."""
    return Coupling(1 - b, 0, b)


def scaled(factor: float = 0.9) -> Coupling:
    """``y = factor x + F(z)`` (MEFT 2023): with a small factor, F and G alone decide what comes out."""
    return Coupling(factor, 0, 1)


def additive() -> Coupling:
    """``y = x + F(z)`` (Gomez et al. 2017)."""
    return Coupling(1, 0, 1)


COUPLINGS: dict[str, Callable[..., Coupling]] = {
    make.__name__: make
    for make in (additive, midpoint, leapfrog, damped_midpoint, momentum, bdia, revdeq, scaled)
}
"""What makes the coupling of each name, with its numbers as arguments. The next one is listed here."""

_DEFAULTS = {name: make() for name, make in COUPLINGS.items()}


def find_coupling(name: str, **numbers: Any) -> Coupling:
    """Return the coupling called `name`.

    Args:
        name: one of `COUPLINGS`.
        numbers: its numbers by name, such as ``gamma=0.9``; those that are left out have their defaults.

    Returns:
        The coupling; without numbers the same object in every call.

    Raises:
        CouplingError: there is none of that name, or it has no such number.

    >>> find_coupling("momentum", gamma=0.5)
    Coupling(alpha=-0.5, beta=1.5, scale=0.5)
    """
    if not isinstance(name, str) or name not in COUPLINGS:
        raise CouplingError(f"coupling: {one_of(name, COUPLINGS)}")
    if not numbers:
        return _DEFAULTS[name]
    known = inspect.signature(COUPLINGS[name]).parameters
    for number, value in numbers.items():
        if number not in known:
            raise CouplingError(
                f"coupling {name}: its numbers are {list(known)}; received {number}={value!r}."
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CouplingError(f"coupling {name}: {number} is a number; received {value!r}.")
    return COUPLINGS[name](**numbers)


def numbers_of(name: str, **numbers: Any) -> dict[str, float]:
    """All numbers of the coupling called `name`: those that are given, and the defaults of the others.

    Args:
        name: one of `COUPLINGS`.
        numbers: as for `find_coupling`.

    Returns:
        The numbers by name, in the order in which the coupling takes them.

    Raises:
        CouplingError: as for `find_coupling`.

    >>> numbers_of("damped_midpoint", a=0.25)
    {'a': 0.25, 'h': 1.0}
    """
    find_coupling(name, **numbers)
    known = inspect.signature(COUPLINGS[name]).parameters
    return {number: float(numbers.get(number, known[number].default)) for number in known}


def inverse_error_growth(rules: Sequence[Coupling]) -> float:
    """Predict how errors grow through the inverse of several blocks; see `Coupling.inverse_error_growth`.

    Args:
        rules: the couplings of the blocks, first to last.

    Returns:
        A factor; 1 for no block, and infinite beyond the range of floats.
    """
    # The columns of a 2 x 2 matrix of norm about 1, and the logarithm of what it was divided by.
    (a, b), (c, d), size = (1.0, 0.0), (0.0, 1.0), 0.0
    for rule in reversed(rules):
        for _ in range(2):
            (a, b), (c, d) = _undone(rule, a, b), _undone(rule, c, d)
            largest = max(map(abs, (a, b, c, d)))
            a, b, c, d, size = a / largest, b / largest, c / largest, d / largest, size + math.log(largest)
    squares = a * a + b * b + c * c + d * d
    difference = math.hypot(a * a + b * b - c * c - d * d, 2 * (a * c + b * d))
    size += math.log((squares + difference) / 2) / 2
    return math.exp(size) if size < _LARGEST else math.inf


_LARGEST = math.log(sys.float_info.max)


def _undone(rule: Coupling, first: float, second: float) -> tuple[float, float]:
    """One half of the rule, without F: (x, z) of (z, alpha x + beta z)."""
    return (second - first * rule.beta) / rule.alpha, first


def combine(numbers: Numbers, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
    """``alpha x + beta z + scale r``, in memory of its own.

    Args:
        numbers: the three of them.
        x: the stream that is updated.
        z: the other, of the same shape and dtype.
        r: the value of F or G.

    Returns:
        The updated stream.

    Raises:
        ResidualError: F or G has changed the shape of its input.
    """
    check_shape(x, r)
    if numbers is ADDITIVE:
        return x + r
    alpha, beta, scale = numbers
    if _is(alpha, 0):
        y = times(z, beta)
    else:
        y = times(x, alpha)
        y = y if _is(beta, 0) else y + times(z, beta)
    return y + times(r, scale)


def check_shape(x: Tensor, r: Tensor) -> None:
    """See that the value `r` of F or G can be added to the stream `x`.

    Raises:
        ResidualError: F or G has changed the shape of its input.
    """
    if r.shape != x.shape:
        raise ResidualError(
            f"F and G must keep the shape of their input; received {tuple(x.shape)} and returned "
            f"{tuple(r.shape)}. Change the shape between reversible sequences, or in a stage entry."
        )


def separate(numbers: Numbers, y: Tensor, z: Tensor, r: Tensor) -> Tensor:
    """The ``x`` of ``y = combine(numbers, x, z, r)``, in memory of its own: hooks may hold that of `y`.

    Args:
        numbers: the three of them; alpha is not 0.
        y: the updated stream.
        z: the other.
        r: the value of F or G.

    Returns:
        The stream before.
    """
    if numbers is ADDITIVE:
        return y - r
    x = y - times(r, numbers.scale)
    if not _is(numbers.beta, 0):
        x = x - times(z, numbers.beta)
    return x if _is(numbers.alpha, 1) else x / numbers.alpha


def times(x: Tensor, factor: float | Tensor) -> Tensor:
    """``factor x``; `x` itself where the factor is 1."""
    return x if _is(factor, 1) else x * factor


def _is(factor: float | Tensor, value: int) -> bool:
    return not isinstance(factor, Tensor) and factor == value
