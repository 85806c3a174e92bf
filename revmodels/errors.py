"""The exceptions of `revmodels`. Each message says the rule, what was received, the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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


class SplitError(RevModelsError, ValueError):
    """An input that cannot be split into two equal halves."""


class ResidualError(RevModelsError, ValueError):
    """A residual function that does not return one tensor of its input's shape."""


class NotReversibleError(RevModelsError, TypeError):
    """A measurement of rebuilt activations on a network that rebuilds none."""


class ReplayError(RevModelsError, RuntimeError):
    """The backward pass cannot repeat the forward pass: something it depends on has changed."""


class ResolutionError(RevModelsError, ValueError):
    """Images of a height and width that a network cannot cut into equal parts."""


class ReversibilityError(RevModelsError, AssertionError):
    """A reversible network does not keep a guarantee; see `revmodels.testing.check_reversible`."""


class BudgetError(RevModelsError, ValueError):
    """A memory budget that is missing, or that no strategy can meet."""


def one_of(value: object, allowed: Iterable[str]) -> str:
    """The tail of a message: the legal values and, where there is one, the nearest.

    >>> one_of("revers", ["store", "reverse"])
    "'revers' is not one of: store, reverse. Did you mean 'reverse'?"
    """
    names = [str(name) for name in allowed]
    close = get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{value!r} is not one of: {', '.join(names)}.{hint}"
