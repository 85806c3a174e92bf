"""A memory budget: each unit is stored, keeps its input or single layers or is rebuilt, as the budget allows.

`revmodels.strategies.budget_plan` chooses, when the first training step shows the shapes of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

from revmodels.errors import BudgetError, CompileError
from revmodels.strategies.memory_plan import BUDGET
from revmodels.strategies.reverse import rebuilt
from revmodels.strategies.strategy import ForwardPass, PlannedSequence, Strategy, Streams, applied

if TYPE_CHECKING:
    from torch import Tensor, nn


class Budget(Strategy):
    """Activations fit `memory_budget_bytes` in every step, at the least recomputation."""

    name = BUDGET
    summary = (
        "Stores, keeps input or layers of, or rebuilds each unit, so that a step fits a number of bytes."
    )
    inverts = True
    needs_inverse = True
    plans = True
    settings: ClassVar = {"memory_budget_bytes": None}

    def plan(self, model: nn.Module, sequence: PlannedSequence, *inputs: Any, **options: Any) -> None:
        """Plan for these inputs, unless a plan for inputs at least as large is known; see `Strategy.plan`.

        Raises:
            BudgetError: not even rebuilding every unit fits the budget.
            CompileError: the network is being compiled, and nothing has been planned.
        """
        import torch

        from revmodels.strategies.budget_plan import plan_if_needed

        if torch.compiler.is_dynamo_compiling():
            if sequence.plans.modes is None:
                raise CompileError(
                    "strategy='budget' cannot plan while the network is compiled. Call "
                    "revmodels.strategies.budget_plan.plan_memory(model, inputs) before."
                )
            return

        plan_if_needed(model, sequence, inputs, options)

    def modes(self, forward: ForwardPass) -> tuple[str, ...]:
        """Return what has been planned.

        Raises:
            BudgetError: nothing has been.
        """
        if forward.modes is None:
            raise BudgetError(
                "strategy='budget' chooses when it has seen the shape of a batch. Run a training step "
                "first, or revmodels.strategies.budget_plan.plan_memory(model, inputs)."
            )
        return forward.modes

    def recomputes_stem(self, modes: Sequence[str]) -> bool:
        """Whether any unit is not stored."""
        return any(mode != "store" for mode in modes)

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn, each as planned; see `Strategy.run`.

        Returns:
            The streams that leave the last unit.

        Raises:
            BudgetError: nothing has been planned.
        """
        modes = self.modes(forward)
        for stored, group in groupby(range(len(modes)), key=lambda index: modes[index] == "store"):
            indices = list(group)
            places = range(indices[0], indices[-1] + 1)
            if stored:
                streams = applied(forward, places, *streams)
            else:
                keeps = [modes[index] == "checkpoint" for index in places]
                layers = [forward.layers[index] for index in places] if forward.layers else ()
                streams = rebuilt(forward, places, keeps, *streams, layers=layers)
        return streams
