"""The memory strategies as readers of a store know them: what each does, and how it is named and drawn.

Nothing else in this package compares the names of strategies. A new strategy is one entry here; one that this
version does not know is read and drawn in gray, and is nobody's baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["stores", "moves", "recomputes", "inverts", "lossy"]
"""How a strategy comes by the activations that the backward pass needs.

``stores`` keeps them and is what others are measured against. ``moves`` keeps them elsewhere. ``recomputes``
runs forward again from what it kept, so its gradients are those of storing. ``inverts`` rebuilds them from
the output of a block, with rounding errors. ``lossy`` keeps them in fewer bits.
"""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One memory strategy.

    Attributes:
        name: As it stands in the column ``strategy``.
        doing: What one does who uses it, as in "reversing takes less memory".
        role: See `Role`.
        color: Of its marks in every figure: the eight of Okabe and Ito, and two grays.
    """

    name: str
    doing: str
    role: Role
    color: str


STORE, REVERSE, CHECKPOINT = "store", "reverse", "checkpoint"
"""The names that the claims of the paper are about."""

NEUTRAL = "#8A8F98"
"""The gray of what has no color of its own."""

_ALL = (
    Strategy(name=REVERSE, doing="reversing", role="inverts", color="#0072B2"),
    Strategy(name=STORE, doing="storing", role="stores", color="#D55E00"),
    Strategy(name=CHECKPOINT, doing="checkpointing", role="recomputes", color="#E69F00"),
    Strategy(name="segments", doing="checkpointing segments", role="recomputes", color="#F0E442"),
    Strategy(name="recursive", doing="checkpointing recursively", role="recomputes", color="#CC79A7"),
    Strategy(name="selective", doing="recomputing selectively", role="recomputes", color="#009E73"),
    Strategy(name="offload", doing="offloading", role="moves", color="#55585D"),
    Strategy(name="quantized", doing="storing in fewer bits", role="lossy", color="#8A8F98"),
    Strategy(name="compile", doing="compiling with a budget", role="recomputes", color="#56B4E9"),
    Strategy(name="budget", doing="storing within a budget", role="inverts", color="#000000"),
)
STRATEGIES = {one.name: one for one in _ALL}


def is_stored(name: str | None) -> bool:
    """Whether a strategy keeps all activations: it is what others are measured against."""
    return _role(name) == "stores"


def is_rival(name: str | None) -> bool:
    """Whether a strategy is one of those that are measured against storing."""
    return _role(name) not in (None, "stores")


def is_reversing(name: str | None) -> bool:
    """Whether a strategy rebuilds every activation that it can: reversing itself, and no mixture."""
    return name == REVERSE


def is_exact(name: str | None) -> bool:
    """Whether a strategy's gradients are those of storing by definition: nothing is rebuilt or rounded."""
    return _role(name) in ("stores", "moves", "recomputes")


def inverts(name: str | None) -> bool:
    """Whether a strategy rebuilds activations from the output of a block, all of them or some."""
    return _role(name) == "inverts"


def strategy_color(name: str | None) -> str:
    """The color of a strategy, gray for one without."""
    found = STRATEGIES.get(name or "")
    return found.color if found else NEUTRAL


def doing(name: str | None) -> str:
    """What one does who uses a strategy, in words: reversing, storing."""
    found = STRATEGIES.get(name or "")
    return found.doing if found else f"strategy {name or 'unknown'}"


def preference(name: str | None) -> int:
    """A sort key that puts reversing first, then checkpointing, then storing, then all others."""
    order = (REVERSE, CHECKPOINT, STORE)
    return order.index(name) if name in order else len(order)


def _role(name: str | None) -> Role | None:
    found = STRATEGIES.get(name or "")
    return found.role if found else None
