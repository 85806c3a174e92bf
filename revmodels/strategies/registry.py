"""The strategies by name. The next one is listed here."""

from __future__ import annotations

from collections.abc import Iterable

from revmodels.errors import StrategyError, one_of
from revmodels.strategies.budget import Budget
from revmodels.strategies.checkpoint import Checkpoint
from revmodels.strategies.compile import Compile
from revmodels.strategies.offload import Offload
from revmodels.strategies.quantized import Quantized
from revmodels.strategies.recursive import Recursive
from revmodels.strategies.reverse import Reverse
from revmodels.strategies.segments import Segments
from revmodels.strategies.selective import Selective
from revmodels.strategies.store import Store
from revmodels.strategies.strategy import Strategy

_BY_NAME: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Store(),
        Reverse(),
        Checkpoint(),
        Segments(),
        Recursive(),
        Selective(),
        Offload(),
        Quantized(),
        Compile(),
        Budget(),
    )
}

STRATEGIES: tuple[str, ...] = tuple(_BY_NAME)
"""The names of all strategies."""


def find_strategy(name: str, allowed: Iterable[str] = STRATEGIES) -> Strategy:
    """Return the strategy called `name`.

    Args:
        name: what to look for.
        allowed: the names that may be used here.

    Raises:
        StrategyError: `name` is not one of `allowed`.
    """
    if not isinstance(name, str) or name not in tuple(allowed):
        raise StrategyError(f"strategy: {one_of(name, allowed)}")
    return _BY_NAME[name]


def is_strategy(name: str) -> bool:
    """Whether there is a strategy called `name`."""
    return name in _BY_NAME


def default_strategy(*, invertible: bool) -> str:
    """The name of the strategy of a network that was given none: ``reverse`` if it has inverses to use."""
    return (Reverse if invertible else Store).name


def usable_strategies(*, invertible: bool) -> tuple[str, ...]:
    """The names of the strategies that a network can use: those that need inverses if it has them."""
    return tuple(name for name, strategy in _BY_NAME.items() if invertible or not strategy.needs_inverse)
