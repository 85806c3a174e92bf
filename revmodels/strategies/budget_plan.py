"""Choose per unit and layer what is held and what is computed again, so that a training step fits a budget.

A unit is rebuilt, holds its input, the outputs of some of its layers, or its whole graph
(`revmodels.strategies.unit_cost`). Steps from one to the next are ranked by the work saved per byte held,
later units first among equals: what a late unit holds is freed before the early, large units are rebuilt, so
it often costs nothing at the peak. As many steps are taken in that order as fit, and the peak of each
candidate is computed on fake tensors (`revmodels.measure.predict_memory`), not estimated. That is the greedy
solution of a knapsack: what it leaves of the budget is less than the next step takes, one layer of one unit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from revmodels.coupling.block import received
from revmodels.coupling.context import Context, Pair
from revmodels.errors import BudgetError, RevModelsError
from revmodels.memory.preserved_state import random_state_kept
from revmodels.memory.step import Loss, described, predict_memory, shaped_copy
from revmodels.strategies.memory_plan import BUDGET, MemoryPlan, Plans, Situation
from revmodels.strategies.strategy import PlannedSequence
from revmodels.strategies.unit_cost import Holding, UnitCost, unit_cost
from revmodels.torch_internals import (
    FakeTensorMode,
    without_dispatch_modes,
    without_global_hooks,
)


def plan_memory(model: nn.Module, *inputs: Any, loss: Loss | None = None, **options: Any) -> MemoryPlan:
    """Choose what happens to the units of a sequence when `model` is trained on batches like `inputs`.

    A training step plans by itself where it has to. This does it beforehand, and counts what the network
    around the sequence holds too.

    A plan serves every batch that is larger in no dimension and equal in everything else that memory depends
    on: dtypes, devices, what is trained, training or evaluation mode, autocast, the budget.

    Args:
        model: a network that contains one sequence of strategy ``budget``, or the sequence itself.
        inputs: what `model` is called with; of its tensors shapes, layouts and dtypes count.
        options: likewise, by name.
        loss: maps (outputs, None) to a scalar; None is one that keeps as much as cross-entropy does: a tensor
            of the outputs' size, and another for their gradient.

    Returns:
        The plan with the least recomputation whose predicted peak fits the sequence's `memory_budget_bytes`.
        It is in force from then on.

    Raises:
        BudgetError: there is no such sequence or several, the budget is no positive whole number of bytes, or
            not even ``reverse`` fits; the message gives the smallest possible budget.
    """
    found: list[Any] = [
        m for m in model.modules() if isinstance(getattr(m, "plans", None), Plans) and m.strategy == BUDGET
    ]
    if len(found) != 1:
        raise BudgetError(
            f"a memory budget is planned for one reversible sequence of strategy 'budget'; "
            f"{type(model).__name__} holds {len(found)}. Plan each sequence on its own."
        )
    with random_state_kept(torch.device("cpu")):
        return _plan(model, found[0], Context(inputs, options), loss)


def plan_if_needed(
    model: nn.Module, sequence: PlannedSequence, inputs: Sequence[Any], options: Mapping[str, Any]
) -> None:
    """Plan as `plan_memory` does, unless a plan is known that serves these inputs; that one is in force then.

    Args:
        model: the network that holds the sequence, or the sequence itself.
        sequence: of strategy ``budget``.
        inputs: what `model` is called with.
        options: likewise, by name.
    """
    call = Context(tuple(inputs), options)
    if sequence.plans.tried is None and not sequence.plans.find(_situation(model, sequence, call)):
        with random_state_kept(torch.device("cpu")):
            _plan(model, sequence, call, None)


def _plan(model: nn.Module, sequence: PlannedSequence, call: Context, loss: Loss | None) -> MemoryPlan:
    situation = _situation(model, sequence, call)
    budget = sequence.memory_budget_bytes
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget <= 0):
        raise BudgetError(
            "memory_budget_bytes: a positive whole number of bytes, or None for the peak of "
            f"strategy='reverse'; received {budget!r}."
        )
    # Planning is no part of the step: a mode that counts the step's memory must not see it.
    # Nor must hooks for every module, or for what is saved, such as those of checkpoints.
    with ExitStack() as stack:
        stack.enter_context(without_dispatch_modes())
        stack.enter_context(without_global_hooks())
        stack.enter_context(saved_tensors_hooks(Tensor.detach, lambda t: t))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_errors_named(model))
        candidates = _Candidates(model, sequence, call, loss or _like_cross_entropy)
        plan = _search(candidates, budget)
    sequence.plans.add(situation, plan)
    if candidates.received is not None:
        # A sequence that is called by a network which knows nothing of plans asks by what it receives.
        assert isinstance(sequence, nn.Module)
        inner = _situation(sequence, sequence, candidates.received, device=call.tensors[0].device)
        sequence.plans.add(inner, plan)
    return plan


@contextmanager
def _errors_named(model: nn.Module) -> Iterator[None]:
    try:
        yield
    except RevModelsError:
        raise
    except Exception as error:
        raise BudgetError(
            "strategy='budget' plans with tensors that have shapes and no numbers, and "
            f"{type(model).__name__} cannot be run on those: {type(error).__name__}: {error} Tensors that it "
            "holds must be parameters or buffers, and what it does must not depend on numbers. Otherwise use "
            "strategy='reverse', with anchor_every where there is memory to spare."
        ) from error


def _situation(
    model: nn.Module,
    sequence: PlannedSequence,
    call: Context,
    *,
    device: torch.device | None = None,
) -> Situation:
    inputs = call.tensors
    device = device or inputs[0].device
    casts = torch.is_autocast_enabled(device.type)
    autocast = torch.get_autocast_dtype(device.type) if casts else None
    return Situation(
        shapes=tuple(tuple(x.shape) for x in inputs),
        rest=(
            tuple((x.dtype, x.requires_grad, _memory_format(x)) for x in inputs),
            (_form(call.args), _form(dict(call.options))),
            device,
            autocast,
            tuple(m.training for m in model.modules()),
            tuple((p.dtype, p.requires_grad) for p in model.parameters()),
            tuple((unit.precision, unit.is_exact, unit.rule) for unit in sequence.units()),
            sequence.keeps_input,
            sequence.memory_budget_bytes,
        ),
    )


def _form(value: Any) -> Hashable:
    """The structure of what a model is called with: the classes of what is no tensor, and plain values."""
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_form, value))
    if isinstance(value, dict):
        return dict, tuple((key, _form(item)) for key, item in value.items())
    if isinstance(value, bool | int | float | str | type(None)):
        return type(value), value
    return str(Tensor if isinstance(value, Tensor) else type(value))  # a fake one stands for a real one


def _memory_format(x: Tensor) -> tuple[int, ...]:
    """The order of the dimensions in memory, outermost first."""
    return tuple(sorted(range(x.dim()), key=lambda d: (-x.stride()[d], d)))


def _like_cross_entropy(out: Tensor | Sequence[Tensor], _: object) -> Tensor:
    """A loss that keeps a tensor of each output's size, and whose gradient is another."""
    outs = [out] if isinstance(out, Tensor) else list(out)
    real = [torch.view_as_real(o) if o.is_complex() else o for o in outs]
    return torch.stack([o.exp().square().sum() for o in real if o.is_floating_point()]).sum()


_NEAR = 8
"""Steps of a plan that are searched around a guess, before halves are."""


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
    guess = bisect_right(range(high + 1), budget - smallest, key=candidates.held) - 1
    reach = 1
    while high - low > 1:
        # What is held predicts the peak well, so a search from there takes a few steps and not the logarithm.
        middle = min(max(guess, low + 1), high - 1) if reach <= _NEAR else (low + high) // 2
        if candidates.peak(middle) <= budget:
            low, guess = middle, middle + reach
        else:
            high, guess = middle, middle - reach
        reach *= 2
    holdings = candidates.holdings(low)
    return MemoryPlan(
        modes=tuple(way.mode for way in holdings),
        budget_bytes=budget,
        predicted_bytes=candidates.peak(low),
        smallest_bytes=smallest,
        stored_bytes=stored,
        recomputed=candidates.recomputed(low),
        layers=tuple(way.layers for way in holdings),
    )


class _Candidates:
    """The plans under consideration: the first `count` steps of a fixed order are taken, the rest are not.

    Attributes:
        order: positions of units and what they hold from then on, what saves the most work per byte first.
        received: what the sequence is called with by the model; None where it is the model.
    """

    def __init__(self, model: nn.Module, sequence: PlannedSequence, call: Context, loss: Loss) -> None:
        self._model, self._loss = model, loss
        self.received: Context | None = None
        self._name = next((name for name, m in model.named_modules() if m is sequence), None)
        if self._name is None:
            raise BudgetError(
                f"a memory budget is planned for a sequence inside the network that is called; "
                f"{type(model).__name__} does not hold it. Pass the network around it."
            )
        inputs = call.tensors
        self._needs_grad = [x.requires_grad for x in inputs]
        if not any((*self._needs_grad, *(p.requires_grad for p in model.parameters()))):
            # A step without a gradient holds less than one with the input's.
            self._needs_grad = [x.is_floating_point() or x.is_complex() for x in inputs]
        self._call = self._described(call, "meta")
        self._frugal = tuple("checkpoint" if keeps else "reverse" for keeps in sequence.keeps_input)
        self._costs = self._unit_costs(call)
        ways = [list(cost.holdings(mode)) for cost, mode in zip(self._costs, self._frugal, strict=True)]
        steps = [
            (-way.saved_per_byte, -i, place, way)
            for i, unit in enumerate(ways)
            for place, way in enumerate(unit)
            if place
        ]
        self.order = [(-i, way) for _, i, _, way in sorted(steps, key=itemgetter(0, 1, 2))]
        self._start = [unit[0] for unit in ways]
        self._peaks: dict[int, int] = {}

    def holdings(self, count: int) -> list[Holding]:
        """What each unit holds, first to last."""
        found = list(self._start)
        for i, way in self.order[:count]:
            found[i] = way
        return found

    def held(self, count: int) -> int:
        """Bytes that all units hold, about."""
        return sum(way.bytes for way in self.holdings(count))

    def recomputed(self, count: int) -> float:
        """Share of the forward work done twice."""
        return sum(way.repeated for way in self.holdings(count)) / sum(c.work for c in self._costs)

    def peak(self, count: int) -> int:
        """Predicted peak of activations and temporaries, in bytes."""
        if count not in self._peaks:
            twin = self._trying(shaped_copy(self._model, "meta"), self.holdings(count))
            batch = (), torch.empty(0, device="meta")
            use = predict_memory(twin, batch, loss=self._loss, context=self._call)
            self._peaks[count] = use.activation_bytes
        return self._peaks[count]

    def _unit_costs(self, call: Context) -> list[UnitCost]:
        calls: list[tuple[Pair, Context]] = []
        outer: list[Context] = []
        with FakeTensorMode():
            twin = self._trying(shaped_copy(self._model, "cpu"), None)
            sequence = twin.get_submodule(self._name or "")
            units = list(sequence.units())  # type: ignore[operator]
            hooks = [
                unit.register_forward_pre_hook(
                    lambda _, args, options: calls.append(received(args, options)), with_kwargs=True
                )
                for unit in {id(unit): unit for unit in units}.values()
            ]
            hooks.append(
                sequence.register_forward_pre_hook(
                    lambda _, args, options: outer.append(Context(args, dict(options))), with_kwargs=True
                )
            )
            described = self._described(call, "cpu")
            twin(*described.args, **described.options)
            for hook in hooks:
                hook.remove()
            self.received = outer[0] if self._name else None
            # A unit that stands in several places is called once for each, and in the order of the places.
            device = call.tensors[0].device.type
            return [unit_cost(unit, *seen, device) for unit, seen in zip(units, calls, strict=False)]

    def _described(self, call: Context, device: str) -> Context:
        needs = iter(self._needs_grad)
        return call.mapped(lambda x: described(x, device).requires_grad_(next(needs)))

    def _trying(self, model: nn.Module, holdings: Sequence[Holding] | None) -> nn.Module:
        plans = Plans(tried=("store",) * len(self._frugal))
        if holdings is not None:
            layers = tuple(tuple(layer.name for layer in way.layers) for way in holdings)
            plans = Plans(tried=tuple(way.mode for way in holdings), tried_layers=layers)
        model.get_submodule(self._name or "").plans = plans  # type: ignore[assignment]
        return model
