"""Check that a block or a network of yours keeps what this package guarantees.

>>> from revmodels import ReversibleBlock
>>> block = ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4))
>>> print(check_reversible(block, torch.randn(3, 8), guarantees=["gradients", "one_extra_forward"]))
holds           gradients          relative error of the gradient of ...
holds           one_extra_forward  evaluations of ...
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock, received
from revmodels.coupling.context import Context, Given, Pair, as_context
from revmodels.errors import NotReversibleError, ReversibilityError, one_of
from revmodels.models.base import ResidualNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence
from revmodels.testing.guarantees import GUARANTEES
from revmodels.testing.network_under_test import Check, Figure, Make, NotApplicableError, Subject, Unit

HOLDS, BROKEN, NOT_APPLICABLE = "holds", "broken", "not applicable"

REPEATS = 3
"""A single block is checked as a sequence of this many copies, since a chain is where rebuilding can fail."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One guarantee.

    Attributes:
        guarantee: its name in `revmodels.testing.guarantees.GUARANTEES`.
        outcome: ``holds``, ``broken`` or ``not applicable``.
        detail: the worst figure and its limit, the exception that was raised, or why it does not apply.
        figures: everything that was measured.
    """

    guarantee: str
    outcome: str
    detail: str
    figures: tuple[Figure, ...] = ()

    def __str__(self) -> str:
        return f"{self.outcome:15} {self.guarantee:24} {self.detail}"


@dataclass(frozen=True)
class Report:
    """What `check_reversible` found, in the order of the guarantees."""

    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The guarantees that do not hold."""
        return tuple(f for f in self.findings if f.outcome == BROKEN)

    def __getitem__(self, guarantee: str) -> Finding:
        """The finding on one guarantee."""
        return next(f for f in self.findings if f.guarantee == guarantee)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check_reversible(
    block_or_model: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    guarantees: Iterable[str] | None = None,
    tolerance: float = 1e-12,
    context: Given = (),
) -> Report:
    """Measure every guarantee on a block, a sequence, or any module that contains sequences.

    What it cannot see: a custom `torch.autograd.Function` whose backward is wrong, because the stored twin
    uses it too; what F does only for other shapes, values or devices than those of `inputs`; and state that
    is not reached from the module, such as a global counter that changes no number here.

    Works on copies in the mode (train or eval) of what it is given, so check in training mode if batch norm
    or dropout matter. Nothing of the caller's moves: weights, gradients, buffers, random generators.

    Args:
        block_or_model: a `ReversibleBlock` (checked as a chain of copies), a `ReversibleSequence`, or a
            module with sequences inside; every sequence is put into strategy ``reverse``.
        inputs: what it is called with: a tensor, or several, of any shape; floating ones are converted to the
            dtype that is measured in, others (token ids, masks) are handed on. A small batch of random
            numbers will do.
        guarantees: names in `revmodels.testing.guarantees.GUARANTEES`; None is all.
        tolerance: relative error allowed in float64.
        context: what it is called with behind `inputs`: a sequence of values by position, or a mapping by
            name. The gradients of floating tensors in it are checked like those of inputs.

    Returns:
        The report; ``print`` shows it as a table.

    Raises:
        ReversibilityError: a guarantee is broken. The message names it, what was measured, value and limit.
        NotReversibleError: there is nothing reversible in it, or it is no module.
    """
    if not isinstance(block_or_model, nn.Module):
        raise NotReversibleError(
            "check_reversible takes a module: a ReversibleBlock, a ReversibleSequence, or a network with one "
            f"inside; received {type(block_or_model).__name__}. Put the function into a ReversibleBlock."
        )
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    names = list(GUARANTEES) if guarantees is None else list(guarantees)
    for name in names:
        if name not in GUARANTEES:
            raise ValueError(f"guarantees: {one_of(name, GUARANTEES)}")
    checks = {name: GUARANTEES[name] for name in names}
    make = partial(_subject, block_or_model, inputs, as_context(context))
    report = examine(make, checks, tolerance=tolerance)
    if report.broken:
        lines = "\n".join(f"  {f.guarantee}: {f.detail}" for f in report.broken)
        raise ReversibilityError(
            f"{type(block_or_model).__name__} breaks {len(report.broken)} of {len(names)} guarantees:\n"
            f"{lines}\nF and G must be functions of their input alone, apart from dropout and batch norm, "
            "and must leave it unchanged; where they do, the engine is at fault."
        )
    return report


def examine(make: Make, checks: Mapping[str, Check] = GUARANTEES, *, tolerance: float = 1e-12) -> Report:
    """Measure guarantees on any implementation and report, where `check_reversible` raises.

    Args:
        make: makes a fresh `revmodels.testing.network_under_test.Subject` of a dtype.
        checks: what to measure, by name.
        tolerance: relative error allowed in float64.
    """
    findings = []
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    for name, check in checks.items():
        with torch.random.fork_rng(devices=devices, device_type="cuda"), torch.enable_grad():
            findings.append(_examine_one(name, check, make, tolerance))
    return Report(tuple(findings))


def _examine_one(name: str, check: Check, make: Make, tolerance: float) -> Finding:
    try:
        figures = tuple(check(make, tolerance))
    except NotApplicableError as reason:
        return Finding(guarantee=name, outcome=NOT_APPLICABLE, detail=str(reason))
    except NotReversibleError:
        raise
    except Exception as error:
        # Whatever an implementation raises where it should work is a broken guarantee.
        return Finding(guarantee=name, outcome=BROKEN, detail=f"raised {type(error).__name__}: {error}")
    if not figures:
        return Finding(guarantee=name, outcome=NOT_APPLICABLE, detail="there is nothing to compare")
    worst = max(figures, key=lambda f: (not f.holds, f.value != f.value, f.value))
    return Finding(
        guarantee=name, outcome=HOLDS if worst.holds else BROKEN, detail=str(worst), figures=figures
    )


class _OnContext(nn.Module):
    """A module that is called with tensors alone, and puts those of a context back into their places."""

    def __init__(self, module: nn.Module, inputs: int, context: Context) -> None:
        super().__init__()
        self.module = module
        self._inputs = inputs
        self._context = context

    def forward(self, *tensors: Tensor) -> Any:
        rest = iter(tensors[self._inputs :])
        context = self._context.mapped(lambda _: next(rest))
        return self.module(*tensors[: self._inputs], *context.args, **context.options)


def _subject(module: nn.Module, inputs: tuple[Tensor, ...], context: Context, dtype: torch.dtype) -> Subject:
    if isinstance(module, ReversibleBlock):
        blocks = [copy.deepcopy(module) for _ in range(REPEATS)]
        module = ReversibleSequence(blocks, split_dim=module.split_dim).train(module.training)
    if context:
        module = _OnContext(module, len(inputs), context).train(module.training)
        inputs = (*inputs, *context.tensors)
    model, twin = (_prepared(module, dtype, name) for name in ("reverse", "store"))
    units = []
    for prefix, sequence in _sequences(model):
        for i, unit in enumerate(sequence.units()):
            name = ".".join(part for part in (prefix, "blocks", str(i)) if part)
            parameters = tuple(f"{name}.{n}" for n, p in unit.named_parameters() if p.requires_grad)
            units.append(Unit(name=name, residuals=(unit.f, unit.g), parameters=parameters))
    # A module used twice has several names; its parameters are known by the first.
    names = {p: n for n, p in model.named_parameters() if p.requires_grad}
    every = dict(model.named_parameters(remove_duplicate=False))
    units = [replace(u, parameters=tuple({names[every[n]]: None for n in u.parameters})) for u in units]
    inputs = tuple(x.detach().to(dtype) if x.is_floating_point() else x for x in inputs)
    others = dict(twin.named_parameters())
    return Subject(
        model=model,
        twin=twin,
        inputs=inputs,
        parameters={n: (p, others[n]) for p, n in names.items()},
        buffers={n: (b, dict(twin.named_buffers())[n]) for n, b in model.named_buffers()},
        units=tuple(units),
        deepened=partial(_deepened, module, dtype) if _repeatable(model) else None,
        round_trips=partial(_round_trips, twin, inputs),
    )


def _sequences(module: nn.Module) -> list[tuple[str, ReversibleSequence]]:
    found = [(name, m) for name, m in module.named_modules() if isinstance(m, ReversibleSequence)]
    if not found:
        raise NotReversibleError(
            f"the guarantees are about rebuilt activations, and {type(module).__name__} holds no "
            "ReversibleSequence. Put its blocks into one, or check a block by itself."
        )
    return found


def _prepared(module: nn.Module, dtype: torch.dtype, strategy: str) -> nn.Module:
    twin = copy.deepcopy(module)
    name = "fp64" if dtype == torch.float64 else "fp32"

    def policy(precision: Precision) -> Precision:
        return replace(precision, compute=name, stream=name, matmul="ieee")

    for network in twin.modules():
        if isinstance(network, ResidualNetwork):
            network.precision = policy(network.precision)
    twin.to(dtype)
    for _, sequence in _sequences(twin):
        sequence.strategy = strategy
        for unit in sequence.units():
            unit.precision = None if unit.precision is None else policy(unit.precision)
    return twin


def _repeatable(module: nn.Module) -> bool:
    return any(unit.has_inverse for _, sequence in _sequences(module) for unit in sequence.units())


def _deepened(module: nn.Module, dtype: torch.dtype, more: int) -> nn.Module:
    """A reversing copy with `more` copies of each sequence's last invertible unit behind it, no anchors."""
    deeper = _prepared(module, dtype, "reverse")
    for _, sequence in _sequences(deeper):
        units = list(sequence.units())
        last = max((i for i, unit in enumerate(units) if unit.has_inverse), default=None)
        if last is not None:
            copies = [copy.deepcopy(units[last]) for _ in range(more)]
            sequence.blocks = nn.ModuleList([*units[: last + 1], *copies, *units[last + 1 :]])
            sequence.anchor_every = (
                None  # Anchors are stored at every so-many-th unit: that is their purpose.
            )
    return deeper


def _round_trips(
    twin: nn.Module, inputs: tuple[Tensor, ...]
) -> Iterator[tuple[str, Sequence[Tensor], Sequence[Tensor]]]:
    calls: list[tuple[str, ReversibleBlock, Pair, Context]] = []
    kept: set[str] = set()
    hooks = []

    def receive(name: str, unit: ReversibleBlock, args: tuple, options: dict[str, Any]) -> None:
        calls.append((name, unit, *received(args, options)))

    for prefix, sequence in _sequences(twin):
        for i, unit in enumerate(sequence.units()):
            name = ".".join(part for part in (prefix, "blocks", str(i)) if part)
            if sequence.keeps_input[i]:
                kept.add(name)
            hooks.append(unit.register_forward_pre_hook(partial(receive, name), with_kwargs=True))
    twin(*inputs)
    for hook in hooks:
        hook.remove()
    for name, unit, pair, context in calls:
        if name not in kept:
            out = unit(pair, *context.args, **context.options)
            yield name, pair, unit.inverse(out, *context.args, **context.options)
