"""Choose per unit: store it, keep its input or rebuild it, so that a training step fits a budget.

Rebuilding a unit costs one more evaluation of it. Keeping its input costs the bytes of one pair and saves the
last product of F and of G (`revmodels.engine.kept_outputs`); storing costs the bytes its graph holds and
saves the rest. These steps are ranked by the work saved per byte held, later units first among equals: what a
late unit holds is freed before the early, large units are rebuilt, so it often costs nothing at the peak. As
many steps are taken in that order as fit, and the peak of each candidate is computed on fake tensors
(`revmodels.measure.predict_memory`), not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode

from revmodels.coupling.block import ReversibleBlock
from revmodels.engine.kept_outputs import without_value
from revmodels.errors import BudgetError
from revmodels.memory.step import Loss, predict_memory, shaped_copy
from revmodels.sequence import BUDGET, ReversibleSequence


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a budget has decided.

    Attributes:
        modes: of each unit, first to last: ``store``, ``reverse``, or ``checkpoint`` for one that keeps its
            input, as every unit without an inverse must.
        budget_bytes: the budget, for activations and temporaries.
        predicted_bytes: predicted peak of activations and temporaries.
        smallest_bytes: that of ``strategy="reverse"``, the smallest possible.
        stored_bytes: that of ``strategy="store"``.
        recomputed: share of the units' forward work that is done twice, 0 to 1.
    """

    modes: tuple[str, ...]
    budget_bytes: int
    predicted_bytes: int
    smallest_bytes: int
    stored_bytes: int
    recomputed: float

    def __str__(self) -> str:
        """One line of totals, one line of runs of equal modes."""
        runs: list[list[Any]] = []
        for i, mode in enumerate(self.modes):
            if runs and runs[-1][0] == mode:
                runs[-1][2] = i
            else:
                runs.append([mode, i, i])
        parts = ", ".join(f"{mode} {a}" + (f"-{b}" if b > a else "") for mode, a, b in runs)
        return (
            f"{self.predicted_bytes:,} of {self.budget_bytes:,} bytes predicted (reverse "
            f"{self.smallest_bytes:,}, store {self.stored_bytes:,}); {self.recomputed:.0%} of the forward "
            f"work recomputed\nunits: {parts}"
        )


def plan_memory(model: nn.Module, inputs: Tensor, *, loss: Loss | None = None) -> MemoryPlan:
    """Plan `model`'s sequence of strategy ``budget`` for batches up to the size of `inputs`.

    Args:
        model: a network that contains one such sequence, or the sequence itself.
        inputs: a batch, of which only shape and dtype count.
        loss: maps (outputs, None) to a scalar; None is their sum.

    Returns:
        The plan with the least recomputation whose predicted peak fits the sequence's `memory_budget_bytes`.
        It is in force from then on.

    Raises:
        BudgetError: not even ``reverse`` fits; the message gives the smallest possible budget.
    """
    name, sequence = _budgeted(model)
    budget = sequence.memory_budget_bytes
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget <= 0):
        raise BudgetError(
            "memory_budget_bytes: a positive whole number of bytes, or None for the peak of "
            f"strategy='reverse'; received {budget!r}."
        )
    # Planning is no part of the step: a mode that counts the step's memory must not see it.
    with _disable_current_modes():
        plan = _search(_Candidates(model, name, inputs, loss or (lambda out, _: out.sum())), budget)
    sequence.adopt(plan.modes, numel=inputs.numel())
    sequence.plan = plan
    return plan


def _search(candidates: _Candidates, budget: int | None) -> MemoryPlan:
    """The plan that takes the most steps and fits, by bisection."""
    low, high = 0, len(candidates.order)
    smallest, stored = candidates.peak(low), candidates.peak(high)
    budget = smallest if budget is None else budget
    if smallest > budget:
        raise BudgetError(
            f"memory_budget_bytes: the smallest possible for this network and batch is {smallest:,} bytes of "
            f"activations; received {budget:,}. Raise the budget, or lower the batch size."
        )
    if stored <= budget:
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if candidates.peak(middle) <= budget else (low, middle)
    return MemoryPlan(
        modes=candidates.modes(low),
        budget_bytes=budget,
        predicted_bytes=candidates.peak(low),
        smallest_bytes=smallest,
        stored_bytes=stored,
        recomputed=candidates.recomputed(low),
    )


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Of one unit: FLOPs of an evaluation and of its last products, bytes of its graph and of its input."""

    work: int
    last_work: int
    graph_bytes: int
    input_bytes: int

    def steps(self, mode: str) -> list[tuple[float, str]]:
        """Ways to hold more than `mode` does, in order, each with the work it saves per byte."""
        work = self.work - (self.last_work if mode == "checkpoint" else 0)
        if mode == "reverse" and self.last_work:
            keep = self.last_work / self.input_bytes
            store = (work - self.last_work) / max(self.graph_bytes - self.input_bytes, 1)
            if keep >= store:
                return [(keep, "checkpoint"), (store, "store")]
        return [(work / max(self.graph_bytes, 1), "store")]

    def repeated(self, mode: str) -> int:
        """FLOPs done twice."""
        return {"store": 0, "checkpoint": self.work - self.last_work}.get(mode, self.work)


class _Candidates:
    """The plans under consideration: the first `count` steps of a fixed order are taken, the rest are not.

    Attributes:
        order: positions and new modes of units, those that save the most work per byte first.
    """

    def __init__(self, model: nn.Module, name: str, inputs: Tensor, loss: Loss) -> None:
        self._model, self._name, self._loss = model, name, loss
        self._inputs = torch.empty(inputs.shape, dtype=inputs.dtype, device="meta")
        with FakeTensorMode():
            twin = shaped_copy(model, "cpu")
            units = list(self._sequence(twin).units())
            self._frugal = tuple("checkpoint" if unit.stores_input else "reverse" for unit in units)
            self._sequence(twin).adopt(("store",) * len(units), numel=inputs.numel())
            received: list[tuple[Tensor, ...]] = []
            hooks = [u.register_forward_pre_hook(lambda _, args: received.append(args)) for u in units]
            twin(torch.empty(inputs.shape, dtype=inputs.dtype))
            for hook in hooks:
                hook.remove()
            self._costs = [_unit_cost(unit, pair) for unit, pair in zip(units, received, strict=True)]
        steps = [
            (-saved, -i, place, mode)
            for i, (cost, frugal) in enumerate(zip(self._costs, self._frugal, strict=True))
            for place, (saved, mode) in enumerate(cost.steps(frugal))
        ]
        self.order = [(-i, mode) for _, i, _, mode in sorted(steps)]
        self._peaks: dict[int, int] = {}

    def modes(self, count: int) -> tuple[str, ...]:
        """Modes of all units, first to last."""
        modes = list(self._frugal)
        for i, mode in self.order[:count]:
            modes[i] = mode
        return tuple(modes)

    def recomputed(self, count: int) -> float:
        """Share of the forward work done twice."""
        repeated = (c.repeated(mode) for c, mode in zip(self._costs, self.modes(count), strict=True))
        return sum(repeated) / sum(c.work for c in self._costs)

    def peak(self, count: int) -> int:
        """Predicted peak of activations and temporaries, in bytes."""

        def twin() -> nn.Module:
            model = shaped_copy(self._model, "meta")
            self._sequence(model).adopt(self.modes(count), numel=self._inputs.numel())
            return model

        if count not in self._peaks:
            batch = self._inputs, torch.empty(0, device="meta")
            self._peaks[count] = predict_memory(twin, batch, loss=self._loss).activation_bytes
        return self._peaks[count]

    def _sequence(self, model: nn.Module) -> ReversibleSequence:
        sequence = model.get_submodule(self._name)
        assert isinstance(sequence, ReversibleSequence)
        return sequence


def _budgeted(model: nn.Module) -> tuple[str, ReversibleSequence]:
    found = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, ReversibleSequence) and m.strategy == BUDGET
    ]
    if len(found) != 1:
        raise BudgetError(
            f"a memory budget is planned for one reversible sequence of strategy 'budget'; "
            f"{type(model).__name__} holds {len(found)}. Plan each sequence on its own."
        )
    return found[0]


def _unit_cost(unit: ReversibleBlock, pair: tuple[Tensor, ...]) -> _Cost:
    x1, x2 = (x.detach().requires_grad_(True) for x in pair)
    parameters = {p.untyped_storage()._cdata for p in unit.parameters()}
    held: dict[int, Tensor] = {}
    last_work = 0

    def pack(t: Tensor) -> Tensor:
        held[t.untyped_storage()._cdata] = t
        return t

    def on_last(layer: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal last_work
        last_work += 2 * out.numel() * layer.weight[0].numel()  # type: ignore[index]

    halves = () if unit.is_exact else (unit.f, unit.g)
    lasts = [fn[-1] for fn in halves if isinstance(fn, nn.Sequential) and without_value(fn)]
    hooks = [last.register_forward_hook(on_last) for last in lasts]
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(pack, lambda t: t):
        unit(x1, x2)
    for hook in hooks:
        hook.remove()
    return _Cost(
        work=max(counter.get_total_flops(), last_work, 1),
        last_work=last_work,
        graph_bytes=sum(t.untyped_storage().nbytes() for key, t in held.items() if key not in parameters),
        input_bytes=x1.nbytes + x2.nbytes,
    )
