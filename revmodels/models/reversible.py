"""What the reversible networks share: one sequence of units, and what can be switched on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revmodels.coupling.linear import Coupling
from revmodels.coupling.stage_entry import StageEntry
from revmodels.errors import BudgetError, CouplingError
from revmodels.models.architecture import Architecture
from revmodels.models.base import ResidualNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence
from revmodels.strategies.memory_plan import MemoryPlan, Plans


class ReversibleNetwork(ResidualNetwork):
    """Base of the networks whose units are one `ReversibleSequence`; arguments as for `ResidualNetwork`.

    The first unit can be inverted unless a network says otherwise, so nothing between the images and the head
    is kept but the last pair, and what the stem itself keeps.
    """

    body: ReversibleSequence

    def __init__(
        self,
        architecture: Architecture,
        *,
        stem: nn.Module,
        body: ReversibleSequence,
        head: nn.Module,
        num_classes: int,
        width: float,
        precision: Precision | None,
    ) -> None:
        super().__init__(
            architecture,
            stem=stem,
            body=body,
            head=head,
            num_classes=num_classes,
            width=width,
            precision=precision,
        )
        body.owner_plans = True

    def apply_precision(self, precision: Precision) -> None:
        """Hand the policy to the units."""
        self.body.set_precision(precision)

    def memory_plan(self) -> MemoryPlan:
        """Return what strategy ``budget`` has decided for the largest batch so far; it prints as two lines.

        Raises:
            BudgetError: nothing has been planned yet.
        """
        if self.body.plan is None:
            raise BudgetError(
                "strategy='budget' chooses when it has seen the shape of a batch. Run a training step first."
            )
        return self.body.plan

    @property
    def memory_budget_bytes(self) -> int | None:
        """For strategy ``budget``: peak of activations and temporaries of a training step, in bytes.

        None is the peak of ``reverse``, within which the last units can often be stored.
        """
        return self.body.memory_budget_bytes

    @memory_budget_bytes.setter
    def memory_budget_bytes(self, value: int | None) -> None:
        self.body.memory_budget_bytes = value
        self.body.plans = Plans()

    @property
    def anchor_every(self) -> int | None:
        """Distance within a stage of the units that keep their input, see `ReversibleSequence`."""
        return self.body.anchor_every

    @anchor_every.setter
    def anchor_every(self, value: int | None) -> None:
        self.body.anchor_every = value

    @property
    def coupling(self) -> str | Coupling:
        """The rule that joins the two streams, see `revmodels.coupling.linear`; may be assigned at any time.

        Stage entries are not inverted and stay additive.

        Raises:
            CouplingError: on assigning one that does not exist, or that cannot be exact where the precision
                asks for it.
        """
        units = [unit for unit in self.body.units() if not isinstance(unit, StageEntry)]
        return units[0].coupling if units else "additive"

    @coupling.setter
    def coupling(self, value: str | Coupling) -> None:
        if value == "exact":
            raise CouplingError(
                "coupling: whether streams are on a grid is a matter of precision here; received 'exact'. "
                "Use precision=Precision(coupling='exact')."
            )
        self.body.set_coupling(value)

    @property
    def strategy(self) -> str:
        """The name of the body's strategy.

        Raises:
            StrategyError: on assigning a name that is none, or that does not go with `anchor_every`.
        """
        return self.body.strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        self.body.strategy = value

    def start(self, images: Tensor) -> Tensor:
        """Apply the stem, which a plan for a memory budget counts too.

        Args:
            images: (N, C, H, W), of any floating dtype.

        Returns:
            What the units start from, in the dtype of the stream.
        """
        if torch.is_grad_enabled():
            self.body.plan_for(self, images)
        return super().start(images)
