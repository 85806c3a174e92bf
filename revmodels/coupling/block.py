"""The reversible block: two residual functions, coupled so that the input follows from the output.

Forward and inverse, with the three numbers of a coupling (`revmodels.coupling.linear`)::

    y1 = alpha x1 + beta x2 + scale F(x2)        x2 = (y2 - beta y1 - scale G(y1)) / alpha
    y2 = alpha x2 + beta y1 + scale G(y1)        x1 = (y1 - beta x2 - scale F(x2)) / alpha

``additive`` has alpha = scale = 1 and beta = 0: equations 6 to 8 of Gomez et al. 2017. With ``exact=True``
the results of F and G are rounded to a fixed-point grid, on which these sums and differences have no rounding
error (`revmodels.coupling.grid`).

This file is the plain definition. It stores activations as any PyTorch module does, and so it is the naive
twin of `revmodels.engine.eager`, which computes the same values and gradients without storing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from revmodels.coupling.context import Context, Pair, refuse_unread_context, streams_and_context
from revmodels.coupling.grid import to_grid
from revmodels.coupling.linear import (
    ADDITIVE,
    Coupling,
    Numbers,
    RandomCoupling,
    check_shape,
    combine,
    find_coupling,
    separate,
)
from revmodels.coupling.linear import COUPLINGS as LINEAR
from revmodels.coupling.range import Extent
from revmodels.coupling.remainders import Ratio, combine_kept, dropped, separate_kept
from revmodels.errors import CouplingError, ResidualError, SplitError, one_of
from revmodels.grid_bits import check_bits
from revmodels.precision import Precision
from revmodels.running_statistics import batch_norms, frozen_statistics

Step = Callable[..., Pair]
"""Takes the two streams, context and options."""


def split(x: Tensor, dim: int = 1) -> Pair:
    """Split `x` into two contiguous halves along `dim`, as views.

    Raises:
        SplitError: `x` has no such dimension, or its size there is odd.
    """
    if not -x.dim() <= dim < x.dim():
        raise SplitError(
            f"split_dim={dim} needs a tensor with that dimension; received shape {tuple(x.shape)}."
        )
    if x.shape[dim] % 2:
        raise SplitError(
            f"the streams are two equal halves, so dimension {dim} must be even; received shape "
            f"{tuple(x.shape)}. Pad it by one, or pass the two streams as a pair."
        )
    x1, x2 = x.chunk(2, dim)
    return x1, x2


class ReversibleBlock(nn.Module):
    """A pair of residual functions and their coupling.

    Args:
        f: any module that maps a tensor to one of the same shape; added to the first stream.
        g: likewise; added to the second stream.
        coupling: a name in `revmodels.coupling.linear.COUPLINGS` (``additive``, ``midpoint``, ``leapfrog``,
            ``momentum``, ``bdia``, ``scaled``, ...), or a `revmodels.coupling.linear.Coupling` of three
            numbers. ``exact`` is ``additive`` with `exact`.
        exact: whether both streams are kept on a grid of the default resolution, so that the inverse is bit
            for bit. A precision policy that the block is given decides it instead.
        split_dim: dimension along which a single input tensor is halved.

    Call it with one tensor, which is split along `split_dim` and joined again, or with a pair of streams,
    which come back as a pair. Either way shapes are kept. What follows is context, ``block(x, *context,
    **options)``, and is handed to F and G: ``f(x2, *context, **options)`` (`revmodels.coupling.context`).

    Raises:
        CouplingError: no such coupling, or it cannot be exact.
        ResidualError: `f` or `g` is no module.

    Example:
        >>> block = ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4))
        >>> x = torch.randn(2, 8)
        >>> torch.allclose(block.inverse(block(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        f: nn.Module,
        g: nn.Module,
        coupling: str | Coupling = "additive",
        *,
        exact: bool = False,
        split_dim: int = 1,
    ) -> None:
        super().__init__()
        for letter, fn in (("f", f), ("g", g)):
            if not isinstance(fn, nn.Module):
                raise ResidualError(
                    f"{letter}: F and G are modules, so that their parameters and state are known; received "
                    f"{type(fn).__name__}. Call the function in the forward method of an nn.Module."
                )
        self.f = f
        self.g = g
        self.exact = exact
        self.precision: Precision | None = None
        self.coupling = coupling
        self.split_dim = split_dim

    @property
    def coupling(self) -> str | Coupling:
        """The coupling as it was given. Another one may be set, and ``exact`` sets `exact` as well."""
        return self._coupling

    @coupling.setter
    def coupling(self, coupling: str | Coupling) -> None:
        rule, exact = _rule(coupling), self.exact or coupling == "exact"
        if exact or self.is_exact:
            _check_exact(rule)
        self._coupling, self.rule, self.exact = coupling, rule, exact

    @property
    def has_inverse(self) -> bool:
        """Whether the input follows from the output in the present mode, so that it need not be kept."""
        return self.rule.has_inverse(self.training)

    @property
    def is_exact(self) -> bool:
        """Whether the streams are kept on a grid."""
        return self.exact if self.precision is None else self.precision.coupling == "exact"

    def grid(self, dtype: torch.dtype) -> int | None:
        """The k of the grid that streams of `dtype` are kept on; None if they are on none.

        Raises:
            PrecisionError: the coupling is to be exact, and cannot be, or there is no such grid.
        """
        if not self.is_exact:
            return None
        _check_exact(self.rule)
        return check_bits(None if self.precision is None else self.precision.grid_bits, dtype)

    @overload
    def forward(self, x: Tensor, /, *context: Any, **options: Any) -> Any: ...
    @overload
    def forward(self, x: Pair, /, *context: Any, **options: Any) -> Pair: ...
    def forward(self, x: Tensor | Pair, /, *context: Any, _step: Step | None = None, **options: Any) -> Any:
        """Apply the block by itself, storing what ordinary backpropagation needs.

        A sequence gives it a `_step` to take instead, with the two streams in front of the context, because
        rounding to the grid of an exact coupling, and the watch over its range, are then the sequence's
        business.

        Args:
            x: one tensor that holds both streams, or a pair of them.
            context: handed to F and G behind their stream. A second stream may stand in front of it where F
                and G do not take as many arguments.
            options: handed to F and G by name.

        Returns:
            One tensor or a pair, as it was called, of the input's shape and dtype.
        """
        if _step is not None:
            return _step(x, *context, **options)
        streams, context = streams_and_context(x, context, options, (self.f, self.g))
        if isinstance(streams, Tensor):
            halves = split(streams, self.split_dim)
            return torch.cat(self.forward(halves, *context, **options), self.split_dim)
        x1, x2 = streams
        bits = self.grid(x1.dtype)
        if bits is None:
            return self.couple(x1, x2, *context, **options)
        extent = Extent(bits, x1.dtype, reach=self.reach)
        x1, x2 = to_grid(x1, bits), to_grid(x2, bits)
        extent.see(-1, x1, x2)
        y1, y2 = self.couple(x1, x2, *context, **options)
        extent.see(0, y1, y2)
        extent.check()
        return y1, y2

    def couple(self, x1: Tensor, x2: Tensor, *context: Any, **options: Any) -> Pair:
        """Both halves: two streams of equal shape and dtype to two of the same."""
        rule = self.rule
        numbers = self.numbers(x1, rule.seed(x1, self.training))
        y1 = self.combined(numbers, self.shortcut1(x1), x2, self.residual(self.f, x2, *context, **options))
        numbers = self.numbers(x2, rule.seed(x2, self.training))
        y2 = self.combined(numbers, self.shortcut2(x2), y1, self.residual(self.g, y1, *context, **options))
        # What is returned is a tensor of its own, so that a hook on it sees the gradient of what is done with
        # it outside, whatever the strategy; inside, G reads y1 as well.
        return y1.view_as(y1), y2

    @overload
    def inverse(self, y: Tensor, /, *context: Any, **options: Any) -> Any: ...
    @overload
    def inverse(self, y: Pair, /, *context: Any, **options: Any) -> Pair: ...
    def inverse(self, y: Tensor | Pair, /, *context: Any, **options: Any) -> Any:
        """Rebuild the input of a call from its output.

        Batch norm's running statistics do not move. A block that draws random numbers (dropout in training
        mode) draws new ones here, so its inverse is only exact in eval mode.

        Args:
            y: what the call returned, one tensor or a pair.
            context: as in the call.
            options: as in the call.

        Returns:
            One tensor or a pair, as it was called, of the output's shape and dtype.

        Raises:
            CouplingError: the coupling draws random numbers, which are known in a training step alone.
        """
        if isinstance(self.rule, RandomCoupling):
            raise CouplingError(
                f"coupling={self.coupling!r} draws its numbers in a training step, which alone knows them, "
                "and in evaluation mode has no inverse. Use another coupling to invert blocks by hand."
            )
        streams, context = streams_and_context(y, context, options, (self.f, self.g))
        if isinstance(streams, Tensor):
            halves = split(streams, self.split_dim)
            return torch.cat(self.inverse(halves, *context, **options), self.split_dim)
        y1, y2 = streams
        if (bits := self.grid(y1.dtype)) is not None:
            y1, y2 = to_grid(y1, bits), to_grid(y2, bits)
        with frozen_statistics(batch_norms((self.f, self.g))):
            numbers = self.numbers(y1)
            x2 = self.separated(numbers, y2, y1, self.residual(self.g, y1, *context, **options))
            return self.separated(numbers, y1, x2, self.residual(self.f, x2, *context, **options)), x2

    def numbers(self, x: Tensor, seed: int | None = None) -> Numbers:
        """The three numbers of one half.

        Args:
            x: the stream that it updates.
            seed: what the coupling drew for it; None where it draws nothing.

        Returns:
            The numbers. In an exact coupling F and G are scaled before they are put on the grid, not here.
        """
        numbers = self.rule.drawn(x, seed)
        if numbers is ADDITIVE or self.ratio is not None:
            return numbers
        return numbers._replace(scale=1.0) if self.is_exact and numbers.scale != 1 else numbers

    @property
    def ratio(self) -> Ratio | None:
        """The size of alpha of an exact coupling whose sums leave the grid by themselves; None of any other.

        Then products are rounded to the grid, and what that drops is side information.
        """
        return self.rule.ratio if self.is_exact and not self.rule.keeps_grid else None

    @property
    def reach(self) -> float:
        """How far sums within an exact coupling go beyond the streams, see `revmodels.coupling.range`."""
        return max(1.0, abs(self.rule.alpha)) if self.ratio else 1 + abs(self.rule.beta)

    def combined(self, numbers: Numbers, x: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """One half of the coupling.

        Args:
            numbers: the three of it.
            x: the stream that is updated, or its shortcut.
            z: the other, of the same shape and dtype.
            r: the value of F or G.

        Returns:
            The updated stream.
        """
        if (ratio := self.ratio) is None:
            return combine(numbers, x, z, r)
        check_shape(x, r)
        return combine_kept(numbers, ratio, self._bits(x.dtype), x, z, r)

    def separated(
        self, numbers: Numbers, y: Tensor, z: Tensor, r: Tensor, side: Tensor | None = None
    ) -> Tensor:
        """The inverse of `combined`: the stream before, in memory of its own.

        Args:
            numbers: the three of it.
            y: the updated stream.
            z: the other.
            r: the value of F or G.
            side: what `side_information` returned of the stream before.

        Returns:
            The stream before.

        Raises:
            CouplingError: side information is needed and not there.
        """
        if (ratio := self.ratio) is None:
            return separate(numbers, y, z, r)
        if ratio.bits and side is None:
            raise CouplingError(
                f"coupling={self.coupling!r} is exact with side information, which a training step alone "
                "keeps. Use a coupling with alpha = 1 or -1 to invert blocks by hand, or exact=False."
            )
        return separate_kept(numbers, ratio, self._bits(y.dtype), y, z, r, side)

    def side_information(self, x: Tensor) -> Tensor | None:
        """Return what an exact inverse needs beside the output: the bits of `x` that its half drops.

        Args:
            x: a stream that enters the block.

        Returns:
            Bytes in one dimension, `Coupling.side_bits` bits for each number of `x`; None where none are
            dropped.
        """
        ratio = self.ratio
        return None if ratio is None else dropped(x, ratio, self._bits(x.dtype))

    def _bits(self, dtype: torch.dtype) -> int:
        bits = self.grid(dtype)
        assert bits is not None
        return bits

    def residual(self, fn: Callable[..., Tensor], x: Tensor, *context: Any, **options: Any) -> Tensor:
        """Evaluate F or G under the block's precision.

        Args:
            fn: F or G.
            x: its stream.
            context: what it is handed behind the stream, as it is.
            options: likewise, by name.

        Returns:
            Its value, in the dtype of the stream. If there is a grid, it is scaled, and lies on the grid.

        Raises:
            ResidualError: it returned no tensor, or does not take the context.
        """
        function = partial(_on_context, fn, context, options) if context or options else fn
        r = function(x) if self.precision is None else self.precision.run(function, x)
        if not isinstance(r, Tensor):
            raise ResidualError(
                f"F and G must return one tensor; {type(fn).__name__} returned {type(r).__name__}. "
                "Wrap it in a module that returns the tensor to be added."
            )
        if self.is_exact and self.ratio is None and self.rule.scale != 1 and fn in (self.f, self.g):
            r = r.to(x.dtype) * self.rule.scale
        return self._on_grid(r, x.dtype)

    def _on_grid(self, r: Tensor, dtype: torch.dtype) -> Tensor:
        bits = self.grid(dtype)
        return r.to(dtype) if bits is None else to_grid(r, bits, dtype)

    def shortcut1(self, x1: Tensor) -> Tensor:
        """What F's result is added to: here x1 itself."""
        return x1

    def shortcut2(self, x2: Tensor) -> Tensor:
        """What G's result is added to: here x2 itself."""
        return x2


def received(args: tuple, options: Mapping[str, Any]) -> tuple[Pair, Context]:
    """What a sequence has called a unit with, as a hook on the unit sees it.

    Args:
        args: by position: two streams, and context.
        options: by name, among them the step that the sequence lets the unit take.

    Returns:
        The two streams, and what F and G are handed beside them.
    """
    context = {name: value for name, value in options.items() if name != "_step"}
    return (args[0], args[1]), Context(args[2:], context)


def _rule(coupling: str | Coupling) -> Coupling:
    if isinstance(coupling, Coupling):
        return coupling
    if coupling not in (*LINEAR, "exact"):
        raise CouplingError(f"coupling: {one_of(coupling, (*LINEAR, 'exact'))}")
    return find_coupling("additive" if coupling == "exact" else coupling)


def _check_exact(rule: Coupling) -> None:
    if rule.ratio is None:
        raise CouplingError(
            "coupling: an exact inverse needs an alpha whose division can be undone: a ratio of small whole "
            f"numbers, of which the bits that it drops are kept; {rule.why_not_exact}. Use exact=False (in a "
            "precision policy coupling='additive'), or an alpha such as 0.9."
        )


def _on_context(fn: Any, context: tuple, options: dict[str, Any], x: Tensor) -> Tensor:
    try:
        return fn(x, *context, **options)
    except TypeError:
        refuse_unread_context(fn, context, options)
        raise
