"""What the conventional networks share: units of one stream, and strategies that need no inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revmodels.errors import PrecisionError, StrategyError
from revmodels.models.base import ResidualNetwork
from revmodels.precision import Precision
from revmodels.strategies.registry import default_strategy, find_strategy
from revmodels.strategies.strategy import ForwardPass, applied


class StoredNetwork(ResidualNetwork):
    """Base of the networks whose units have one stream; arguments as for `ResidualNetwork`."""

    body: nn.ModuleList

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._strategy = default_strategy(invertible=False)

    def apply_precision(self, precision: Precision) -> None:
        """Hand the policy to the units.

        Raises:
            PrecisionError: the policy is about coupled streams, and these units have one.
        """
        if precision.coupling != "additive":
            raise PrecisionError(
                f"precision.coupling: {self.name} has no coupled streams and nothing to invert; received "
                f"{precision.coupling!r}. Use coupling='additive', or a {_twin(self.family)}."
            )
        for unit in self.body:
            unit.precision = precision  # type: ignore[assignment]

    @property
    def strategy(self) -> str:
        """One of `strategies`: those that need no inverse.

        Raises:
            StrategyError: on assigning another.
        """
        return self._strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        if find_strategy(value).needs_inverse:
            raise StrategyError(
                f"strategy: {self.name} is not reversible, so {value!r} has nothing to rebuild from. Use "
                f"one of {', '.join(self.strategies)}, or a {_twin(self.family)}."
            )
        self._strategy = value

    def transform(self, stream: Tensor) -> Tensor:
        """Apply the units in turn, to what the stem has returned, in the dtype of the stream."""
        units = ForwardPass(units=self.body, apply=_apply)
        if torch.is_grad_enabled():
            (stream,) = find_strategy(self.strategy).run(units, stream)
        else:
            (stream,) = applied(units, range(len(self.body)), stream)
        return stream


def _apply(unit: nn.Module, stream: Tensor) -> tuple[Tensor]:
    return (unit(stream),)


def _twin(family: str) -> str:
    return {"resnet": "RevNet", "gpt": "revgpt"}.get(family, "reversible network")
