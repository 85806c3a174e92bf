"""What a memory budget has decided, and for which calls. `budget_plan` beside this file decides it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

BUDGET = "budget"
"""The name of the strategy that plans."""


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
    """

    current: MemoryPlan | None = None
    known: list[tuple[Situation, MemoryPlan]] = field(default_factory=list)
    tried: tuple[str, ...] | None = None

    @property
    def modes(self) -> tuple[str, ...] | None:
        """The modes in force; None before the first plan."""
        return self.tried or (None if self.current is None else self.current.modes)

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
