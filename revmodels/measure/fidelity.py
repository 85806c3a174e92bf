"""How faithfully a network rebuilds its activations, and what that does to its gradients.

The reference is the stored twin: the same weights, batch, precision and random numbers, with activations
kept. Section 5.2 of the RevNet paper compares the two by the angle between their gradients; the angle here is
``2 atan2(|u - v|, |u + v|)`` of the normalised gradients, which resolves angles that ``arccos`` rounds to 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import Given, Pair
from revmodels.errors import NotReversibleError
from revmodels.memory.preserved_state import buffers_kept, random_state_kept
from revmodels.memory.step import Batch, Call, Loss, call_of
from revmodels.models.base import ResidualNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence

FP64 = Precision(compute="fp64", stream="fp64")


@dataclass(frozen=True, kw_only=True)
class GroupFidelity:
    """The gradient of one group of parameters: those of a unit, or of a part of the network around them.

    Attributes:
        name: module path.
        gradient_rel_error: worst |g' - g| / |g| over its parameters.
        gradient_cosine: cosine between its whole gradient and the stored twin's.
        gradient_angle_deg: the angle between them, in degrees.
        reference_rel_error: |g' - g| / |g| of its whole gradient against float64; None if not asked for.
        reference_cosine: cosine between its whole gradient and float64's; None likewise.
        reference_angle_deg: the angle between them, in degrees; None likewise.
        stored_reference_rel_error: as `reference_rel_error`, of the stored twin's gradient, which rounds but
            rebuilds nothing.
        stored_reference_cosine: likewise.
        stored_reference_angle_deg: likewise.
    """

    name: str
    gradient_rel_error: float
    gradient_cosine: float
    gradient_angle_deg: float
    reference_rel_error: float | None = None
    reference_cosine: float | None = None
    reference_angle_deg: float | None = None
    stored_reference_rel_error: float | None = None
    stored_reference_cosine: float | None = None
    stored_reference_angle_deg: float | None = None


@dataclass(frozen=True, kw_only=True)
class BlockFidelity(GroupFidelity):
    """One unit of the network.

    Attributes:
        index: position, 0 first.
        reconstruction_rel_error: |x' - x| / |x| of its input pair; None for a unit that stores its input.
        stream_rel_errors: the same of x1 and of x2, each by itself; None likewise.
    """

    index: int
    reconstruction_rel_error: float | None
    stream_rel_errors: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Worst figures over the network.

    Attributes:
        reconstruction_rel_error: over units that rebuild their input; 0 where there is none.
        end_to_end_rel_error: that of the pair rebuilt last, the first of all; 0 where there is none.
        gradient_rel_error: over all parameters, those of stem and head included.
        gradient_angle_deg: over all parameters, in degrees.
        blocks: every unit, first to last.
        others: parameters outside the units, by the part of the network they belong to: stem, head.
    """

    reconstruction_rel_error: float
    end_to_end_rel_error: float
    gradient_rel_error: float
    gradient_angle_deg: float
    blocks: tuple[BlockFidelity, ...]
    others: tuple[GroupFidelity, ...] = ()


def fidelity(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss = F.cross_entropy,
    reference: bool = False,
    context: Given = (),
) -> Fidelity:
    """Compare one backward pass that rebuilds activations with one that stores them.

    Model, gradients, buffers, strategy and random generators are left as they were. Needs the memory of
    stored mode; with a reference, that of a float64 copy besides.

    Args:
        model: any module that contains a `ReversibleSequence`, in the mode (train or eval) to be judged.
        batch: (inputs, targets).
        loss: maps (outputs, targets) to a scalar.
        reference: also compare both with a stored copy in float64. A network with dropout draws other numbers
            in float64, and such a comparison means nothing.
        context: what the model is called with behind the inputs: a sequence of values by position, or a
            mapping by name.

    Returns:
        The relative errors and angles, of the whole and of each block.

    Raises:
        NotReversibleError: nothing in `model` is ever rebuilt.
    """
    sequences = {name: m for name, m in model.named_modules() if isinstance(m, ReversibleSequence)}
    if not sequences:
        raise NotReversibleError(
            f"fidelity compares rebuilt activations with stored ones, and {type(model).__name__} holds no "
            "ReversibleSequence. Measure a RevNet."
        )
    units = {(name, index): unit for name, m in sequences.items() for index, unit in enumerate(m.units())}
    is_rebuilt = {name: [not keeps for keeps in m.keeps_input] for name, m in sequences.items()}
    call = call_of(batch, context)
    with buffers_kept(model), _strategies_kept(sequences.values()):
        with _inputs_recorded(units) as stored_pairs:
            stored = _gradients(model, sequences.values(), "store", call, loss)
        errors: dict[tuple[str, int], tuple[float, float, float]] = {}
        with _rebuilt_compared(sequences, stored_pairs, errors):
            rebuilt = _gradients(model, sequences.values(), "reverse", call, loss)
        exact = _reference_gradients(model, call, loss) if reference else None

    found = _Found(rebuilt=rebuilt, stored=stored, exact=exact)
    blocks = tuple(
        BlockFidelity(
            index=position,
            name=".".join(part for part in (name, "blocks", str(index)) if part),
            reconstruction_rel_error=errors[name, index][0] if is_rebuilt[name][index] else None,
            stream_rel_errors=errors[name, index][1:] if is_rebuilt[name][index] else None,
            **found.compared(id(p) for p in unit.parameters()),
        )
        for position, ((name, index), unit) in enumerate(units.items())
    )
    others = tuple(
        GroupFidelity(name=name, **found.compared(keys))
        for name, keys in _outside(model, units.values()).items()
    )
    rebuilt_errors = [b.reconstruction_rel_error for b in blocks if b.reconstruction_rel_error is not None]
    return Fidelity(
        reconstruction_rel_error=_worst(rebuilt_errors),
        end_to_end_rel_error=rebuilt_errors[0] if rebuilt_errors else 0.0,
        gradient_rel_error=_worst(rel_error(rebuilt[i], stored[i]) for i in stored),
        gradient_angle_deg=_worst(angle_deg(rebuilt[i], stored[i]) for i in stored),
        blocks=blocks,
        others=others,
    )


def rel_error(approximate: Tensor, exact: Tensor) -> float:
    """|a - e| / |e| in float64: 0 for two zeros, infinite against a zero reference."""
    difference = (approximate.double() - exact.double()).norm().item()
    norm = exact.double().norm().item()
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / norm


def angle_deg(u: Tensor, v: Tensor) -> float:
    """Angle between two tensors as vectors, in degrees, accurate for small angles; 0 for two zeros."""
    u, v = u.double().flatten(), v.double().flatten()
    if torch.equal(u, v):
        return 0.0
    nu, nv = u.norm(), v.norm()
    if nu == 0 or nv == 0:
        return 90.0
    u, v = u / nu, v / nv
    return math.degrees(2 * math.atan2((u - v).norm().item(), (u + v).norm().item()))


def _gradients(
    model: nn.Module, sequences: Iterable[ReversibleSequence], strategy: str, call: Call, loss: Loss
) -> dict[int, Tensor]:
    """Gradients of one step by parameter id, with the same random numbers in every call."""
    for sequence in sequences:
        sequence.strategy = strategy
    parameters = [p for p in model.parameters() if p.requires_grad]
    with random_state_kept(call.tensors[0].device), torch.enable_grad():
        value = call.loss(model, loss)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    return {id(p): g for p, g in zip(parameters, gradients, strict=True) if g is not None}


def _reference_gradients(model: nn.Module, call: Call, loss: Loss) -> dict[int, Tensor]:
    """Gradients of a stored float64 copy of `model`, by the ids of the model's own parameters."""
    copied = copy.deepcopy(model)
    sequences = [m for m in copied.modules() if isinstance(m, ReversibleSequence)]
    for m in copied.modules():
        if isinstance(m, ResidualNetwork):
            m.precision = FP64
    for sequence in sequences:
        sequence.set_precision(FP64)
    copied.double()  # after the policies, which would keep the parameters in their own dtype
    in_double = replace(
        call, context=call.context.mapped(lambda x: x.double() if x.is_floating_point() else x)
    )
    exact = _gradients(copied, sequences, "store", in_double, loss)
    pairs = zip(model.parameters(), copied.parameters(), strict=True)
    return {id(p): exact[id(q)] for p, q in pairs if id(q) in exact}


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Gradients by parameter id: from rebuilt and from stored activations, and in float64."""

    rebuilt: dict[int, Tensor]
    stored: dict[int, Tensor]
    exact: dict[int, Tensor] | None

    def compared(self, keys: Iterable[int]) -> dict[str, Any]:
        """The figures of `GroupFidelity` for one group of parameters, of those that have a gradient."""
        keys = [key for key in keys if key in self.stored]
        rebuilt, stored = (_joined(g[key] for key in keys) for g in (self.rebuilt, self.stored))
        angle = angle_deg(rebuilt, stored)
        figures: dict[str, Any] = {
            "gradient_rel_error": _worst(rel_error(self.rebuilt[key], self.stored[key]) for key in keys),
            "gradient_cosine": math.cos(math.radians(angle)),
            "gradient_angle_deg": angle,
        }
        if self.exact is not None:
            exact = _joined(self.exact[key] for key in keys)
            for name, gradient in (("reference", rebuilt), ("stored_reference", stored)):
                angle = angle_deg(gradient, exact)
                figures[f"{name}_rel_error"] = rel_error(gradient, exact)
                figures[f"{name}_cosine"] = math.cos(math.radians(angle))
                figures[f"{name}_angle_deg"] = angle
        return figures


def _outside(model: nn.Module, units: Iterable[ReversibleBlock]) -> dict[str, list[int]]:
    """Ids of the parameters that no unit has, by the child of `model` they are under."""
    inside = {id(p) for unit in units for p in unit.parameters()}
    groups: dict[str, list[int]] = {}
    for name, p in model.named_parameters():
        if id(p) not in inside and p.requires_grad:
            groups.setdefault(name.partition(".")[0], []).append(id(p))
    return groups


@contextmanager
def _inputs_recorded(units: dict[tuple[str, int], ReversibleBlock]) -> Iterator[dict[tuple[str, int], Pair]]:
    pairs: dict[tuple[str, int], Pair] = {}

    def recorder(key: tuple[str, int]):
        def hook(module: nn.Module, args: Pair) -> None:
            pairs[key] = (args[0].detach(), args[1].detach())

        return hook

    with ExitStack() as stack:
        for key, unit in units.items():
            stack.callback(unit.register_forward_pre_hook(recorder(key)).remove)
        yield pairs


@contextmanager
def _rebuilt_compared(
    sequences: dict[str, ReversibleSequence],
    stored: dict[tuple[str, int], Pair],
    errors: dict[tuple[str, int], tuple[float, float, float]],
) -> Iterator[None]:
    def observer(name: str):
        def observe(index: int, x1: Tensor, x2: Tensor) -> None:
            s1, s2 = stored[name, index]
            errors[name, index] = (
                rel_error(_joined((x1, x2)), _joined((s1, s2))),
                rel_error(x1, s1),
                rel_error(x2, s2),
            )

        return observe

    for name, sequence in sequences.items():
        sequence.observer = observer(name)
    try:
        yield
    finally:
        for sequence in sequences.values():
            sequence.observer = None


@contextmanager
def _strategies_kept(sequences: Iterable[ReversibleSequence]) -> Iterator[None]:
    kept = [(sequence, sequence.strategy) for sequence in sequences]
    try:
        yield
    finally:
        for sequence, name in kept:
            sequence.strategy = name


def _joined(tensors) -> Tensor:
    flat = [t.detach().double().flatten() for t in tensors]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)


def _worst(values) -> float:
    # max() would drop a NaN that is not first, and a NaN is the worst of all.
    values = list(values)
    return math.nan if any(math.isnan(v) for v in values) else max(values, default=0.0)
