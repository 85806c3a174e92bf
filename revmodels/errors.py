"""The exceptions of `revmodels`. Each message says the rule, what was received, the remedy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Protocol


class RevModelsError(Exception):
    """Base class of this package's exceptions."""


class UnknownModelError(RevModelsError, ValueError):
    """A model name that is no preset."""


class DepthError(RevModelsError, ValueError):
    """A depth the architecture cannot have."""


class WidthError(RevModelsError, ValueError):
    """A width multiplier that is not a positive finite number."""


class StrategyError(RevModelsError, ValueError):
    """A memory strategy that does not exist, or that the network cannot use."""


class PrecisionError(RevModelsError, ValueError):
    """A dtype that does not exist, or a pair of settings that contradict each other."""


class CouplingError(PrecisionError):
    """A coupling that does not exist, that has no inverse, or that cannot be exact."""


class SplitError(RevModelsError, ValueError):
    """An input that cannot be split into two equal halves."""


class ResidualError(RevModelsError, ValueError):
    """A residual function that does not return one tensor of its input's shape."""


class NotReversibleError(RevModelsError, TypeError):
    """A measurement of rebuilt activations on a network that rebuilds none."""


class ReplayError(RevModelsError, RuntimeError):
    """The backward pass cannot repeat the forward pass: something it depends on has changed."""


class DoubleBackwardError(RevModelsError, RuntimeError):
    """A second derivative through what the backward pass computes again."""

    def __init__(
        self, what: str = "a reversible unit", remedy: str = "Use strategy='store' for gradient penalties."
    ) -> None:
        super().__init__(
            f"{what} has no second derivative: what it recomputes is not part of the graph that "
            f"create_graph=True asks for. {remedy}"
        )


class OutsideTensorError(ReplayError):
    """F or G reads a tensor that another computation has made and that needs a gradient."""

    def __init__(self, name: str, operation: str) -> None:
        super().__init__(
            f"{name} reads a tensor that something outside it computed (by {operation}) and that needs a "
            "gradient; the backward pass evaluates it anew and cannot reach that computation. Compute the "
            "tensor inside it from parameters, detach it, or use strategy='store'."
        )


class KeptTensorError(ReplayError):
    """A gradient was asked of a tensor that F or G has kept beside its result."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a gradient was asked of a tensor that {name} has kept beside its result (an auxiliary loss, or "
            "what a hook inside it holds); its graph was not stored. Return what matters as the result, or "
            "use strategy='store'."
        )


class TransformError(ReplayError):
    """A function transform or forward-mode differentiation of rebuilt activations."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} cannot pass through a reversible sequence that rebuilds activations: they are "
            "rebuilt by an ordinary backward pass only. Use strategy='store' for it."
        )


class ResolutionError(RevModelsError, ValueError):
    """Images of a height and width that a network cannot cut into equal parts."""


class OptionError(RevModelsError, TypeError):
    """An option of a model that does not exist, that it does not have, or that is missing."""


class LanguageError(RevModelsError, ValueError):
    """A vocabulary, context or tokens that a language model cannot have or take."""


class ReversibilityError(RevModelsError, AssertionError):
    """A reversible network does not keep a guarantee; see `revmodels.testing.check.check_reversible`."""


class BudgetError(RevModelsError, ValueError):
    """A memory budget that is missing, or that no strategy can meet."""


class CompileError(RevModelsError, RuntimeError):
    """A residual function that `torch.compile` cannot trace."""


class SeenRange(Protocol):
    """What a `RangeError` tells of: `revmodels.coupling.range.Range` is one."""

    @property
    def value(self) -> float:
        """The largest magnitude in either stream."""

    @property
    def block(self) -> int:
        """The block whose output it is in; -1 for the input of the first."""

    @property
    def limit(self) -> float:
        """The magnitude to stay below."""

    @property
    def grid_bits(self) -> int:
        """The k of the grid of 2^-k."""

    @property
    def fitting_bits(self) -> int | None:
        """The largest k that would hold the value, if one does."""


class RangeError(RevModelsError, ArithmeticError):
    """A stream that left the range of its fixed-point grid, so that its inverse is not exact.

    Attributes:
        seen: block, value and limit.
    """

    def __init__(self, seen: SeenRange) -> None:
        self.seen = seen
        where = "the input of the first block" if seen.block < 0 else f"the output of block {seen.block}"
        text = (
            f"exact coupling with grid_bits={seen.grid_bits} holds values below {seen.limit:g}; {where} left "
            f"that range, and the largest value is {seen.value:.6g}. "
        )
        if seen.fitting_bits is not None:
            text += f"grid_bits={seen.fitting_bits} would fit, or a float64 stream."
        elif math.isfinite(seen.value):
            text += "No grid of this stream would fit: the network has diverged."
        else:
            text += "No grid holds that: the network has diverged."
        super().__init__(text)


def one_of(value: object, allowed: Iterable[str]) -> str:
    """The tail of a message: the legal values and, where there is one, the nearest.

    >>> one_of("revers", ["store", "reverse"])
    "'revers' is not one of: store, reverse. Did you mean 'reverse'?"
    """
    names = [str(name) for name in allowed]
    close = get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{value!r} is not one of: {', '.join(names)}.{hint}"
