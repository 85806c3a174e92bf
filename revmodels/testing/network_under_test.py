"""What a guarantee is measured on, and what a measurement is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from revmodels.testing.instruments import error, watched

FLOOR = 1e-3
"""A gradient is judged against its own norm or, if that is smaller, this share of the largest: some are zero
but for rounding, such as that of a bias in front of a batch norm."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One reversible unit: its name, F and G, and the names of its parameters."""

    name: str
    residuals: tuple[nn.Module, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A reversible network to be measured, made afresh for every measurement.

    Attributes:
        model: the network; `twin`: the same weights, storing.
        inputs: what both are called with.
        parameters: by name, of the model and of the twin; `buffers` likewise.
        units: the model's, first to last.
        deepened: a fresh model with that many more units of the same kind; None if it cannot be had.
        round_trips: (unit, its input, that input rebuilt from the unit's output); None without an inverse.
    """

    model: nn.Module
    twin: nn.Module
    inputs: tuple[Tensor, ...]
    parameters: dict[str, tuple[Tensor, Tensor]]
    buffers: dict[str, tuple[Tensor, Tensor]]
    units: tuple[Unit, ...]
    deepened: Callable[[int], nn.Module] | None
    round_trips: Callable[[], Iterable[tuple[str, Sequence[Tensor], Sequence[Tensor]]]] | None


@dataclass(frozen=True)
class Figure:
    """One measurement: what was measured, its value, and the largest value allowed."""

    what: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit; a NaN is not."""
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g}, at most {self.limit:g} allowed"


@dataclass(frozen=True)
class Residual:
    """F or G: its name, and the position of every unit that evaluates it, once for each time."""

    name: str
    units: tuple[int, ...]


class NotApplicableError(Exception):
    """The network has nothing that this guarantee is about; the message says why."""


Make = Callable[[torch.dtype], Subject]
"""Makes a subject whose parameters and inputs have the dtype."""

Check = Callable[[Make, float], list[Figure]]
"""Measures a guarantee on subjects made for it, with a tolerance for relative errors in float64."""


def compared(
    subject: Subject, found: dict[str, Tensor | None], exact: dict[str, Tensor | None], tolerance: float
) -> list[Figure]:
    """Figures for the gradients of inputs, as given, and of parameters, as found in ``.grad``."""
    pairs = {name: (found[name], exact[name]) for name in exact}
    pairs |= {name: (p.grad, q.grad) for name, (p, q) in subject.parameters.items()}
    return errors(pairs, tolerance)


def errors(pairs: dict[str, tuple[Tensor | None, Tensor | None]], tolerance: float) -> list[Figure]:
    """Figures for pairs of a gradient and its exact value."""
    largest = max((e.norm().item() for _, e in pairs.values() if e is not None), default=0.0)
    figures = []
    for name, (found, exact) in pairs.items():
        if exact is None and found is None:
            continue
        value = float("inf")
        if exact is not None and found is not None:
            value = error(found, exact, FLOOR * largest)
        figures.append(Figure(f"relative error of the gradient of {name}", value, tolerance))
    return figures


def each_residual(subject: Subject, call: Callable[[Residual], object]) -> ExitStack:
    """A context in which `call` is told of every evaluation of F and G."""
    owners: dict[nn.Module, Residual] = {}
    for i, unit in enumerate(subject.units):
        for letter, fn in zip("FG", unit.residuals, strict=False):
            known = owners.get(fn, Residual(f"{letter} of {unit.name}", ()))
            owners[fn] = Residual(known.name, (*known.units, i))
    stack = ExitStack()
    for fn, owner in owners.items():
        stack.enter_context(watched((fn,), partial(call, owner)))
    return stack
