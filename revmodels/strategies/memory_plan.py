"""What a memory budget has decided, and for which calls. `budget_plan` beside this file decides it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

BUDGET = "budget"
"""The name of the strategy that plans."""


@dataclass(frozen=True, kw_only=True)
class KeptLayer:
    """A layer whose output a unit keeps.

    Attributes:
        name: in the unit, such as ``f.2``.
        kind: its class.
        operations: of its product, which is not done twice.
        bytes: of its output.
    """

    name: str
    kind: str
    operations: int
    bytes: int


Layers = tuple[tuple[str, ...], ...]
"""Of each unit, the names of the layers whose outputs it keeps; empty if none keeps any."""


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
        layers: of each unit, the layers whose outputs it keeps beside that.
    """

    modes: tuple[str, ...]
    budget_bytes: int
    predicted_bytes: int
    smallest_bytes: int
    stored_bytes: int
    recomputed: float
    layers: tuple[tuple[KeptLayer, ...], ...] = ()

    @property
    def layer_names(self) -> Layers:
        """The names of those layers."""
        return tuple(tuple(layer.name for layer in kept) for kept in self.layers)

    def __str__(self) -> str:
        """One line of totals, one of runs of equal modes, one for layers of equal cost in equal units."""
        parts = ", ".join(f"{mode} {_places(places)}" for mode, places in _runs(self.modes))
        lines = [
            f"{self.predicted_bytes:,} of {self.budget_bytes:,} bytes predicted (reverse "
            f"{self.smallest_bytes:,}, store {self.stored_bytes:,}); {self.recomputed:.0%} of the forward "
            "work recomputed",
            f"units: {parts}",
        ]
        for kept, places in _runs(self.layers):
            alike: dict[tuple[str, int, int], list[str]] = {}
            for layer in kept:
                alike.setdefault((layer.kind, layer.bytes, layer.operations), []).append(layer.name)
            for (kind, size, operations), names in sorted(alike.items(), key=itemgetter(1)):
                lines.append(
                    f"layers of {_places(places)}: {', '.join(sorted(names))} ({kind}); {size:,} bytes each, "
                    f"and {operations / size:,.0f} operations saved for each byte"
                )
        return "\n".join(lines)


def _runs(values: Sequence[Any]) -> list[tuple[Any, tuple[int, int]]]:
    """Neighbours that are equal, with the first and the last position of each run."""
    runs: list[tuple[Any, tuple[int, int]]] = []
    for i, value in enumerate(values):
        if runs and runs[-1][0] == value:
            runs[-1] = value, (runs[-1][1][0], i)
        else:
            runs.append((value, (i, i)))
    return runs


def _places(places: tuple[int, int]) -> str:
    first, last = places
    return f"{first}-{last}" if last > first else f"{first}"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the memory of a step depends on.

    Attributes:
        shapes: of the tensors that the network is called with.
        rest: everything else: their dtypes and devices, what is trained and in which mode, the budget.
    """

    shapes: tuple[tuple[int, ...], ...]
    rest: Hashable

    def covers(self, other: Situation) -> bool:
        """Whether a plan made for this one fits the other: all else equal, and larger in no dimension."""
        if self.rest != other.rest or [len(s) for s in self.shapes] != [len(s) for s in other.shapes]:
            return False
        pairs = zip(self.shapes, other.shapes, strict=True)
        return all(a >= b for mine, others in pairs for a, b in zip(mine, others, strict=True))


@dataclass(kw_only=True)
class Plans:
    """The plans that a sequence has made.

    Attributes:
        current: the plan in force; None before the first.
        known: all plans, each with what it was made for, the last one first.
        tried: modes that a planner is trying out in place of a plan.
        tried_layers: layers that it is trying out with them.
    """

    current: MemoryPlan | None = None
    known: list[tuple[Situation, MemoryPlan]] = field(default_factory=list)
    tried: tuple[str, ...] | None = None
    tried_layers: Layers = ()

    @property
    def modes(self) -> tuple[str, ...] | None:
        """The modes in force; None before the first plan."""
        return self.tried or (None if self.current is None else self.current.modes)

    @property
    def layers(self) -> Layers:
        """The layers that units keep by what is in force."""
        if self.tried:
            return self.tried_layers
        return () if self.current is None else self.current.layer_names

    def find(self, situation: Situation) -> MemoryPlan | None:
        """The last plan that fits a call in `situation`, which becomes the one in force."""
        for planned, plan in self.known:
            if planned.covers(situation):
                self.current = plan
                return plan
        return None

    def add(self, situation: Situation, plan: MemoryPlan) -> None:
        """Put a plan into force."""
        self.known.insert(0, (situation, plan))
        self.current = plan
