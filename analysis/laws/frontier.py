"""What to train with M bytes and C operations: a law of loss over candidates of known bytes and operations.

A candidate is a network with everything that a training of it takes: its bytes in a step, and its operations
for each datum, with what its memory strategy computes again. A budget of operations buys each candidate so
many data, and the law says what loss they give. So a strategy that saves bytes buys size, and pays for it in
data.

Candidates come from outside: `study.plan.candidates` predicts their bytes and counts their operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.errors import AnalysisError
from analysis.laws.least_loss import Array
from analysis.laws.loss import LossLaw

FACTOR = 10.0
"""A law is trusted to this many times the largest size and amount of data that it was fitted to."""
CELLS = 33
"""Budgets along each side of the map."""


class FrontierError(AnalysisError):
    """No candidate fits the budget, or the law would have to say more than it can."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network and how it is trained.

    Attributes:
        model: The preset.
        depth: Its layers.
        width: Multiplier on the preset's channels.
        context: Tokens of a sequence; None for tasks without.
        strategy: How the backward pass gets its activations.
        batch: Examples of an optimizer step.
        accumulate: Parts in which a batch goes through the network.
        compute_dtype: Arithmetic of F and G.
        stream_dtype: Type of the streams.
        optimizer: The optimizer.
        optimizer_state: How its state is kept.
        parameters: N, as the law counts it.
        memory_bytes: The predicted peak of a step.
        operations: For each datum of the law, with recomputation.
    """

    model: str
    depth: int
    width: float
    context: int | None
    strategy: str
    batch: int
    accumulate: int
    compute_dtype: str
    stream_dtype: str
    optimizer: str
    optimizer_state: str
    parameters: float
    memory_bytes: int
    operations: float


@dataclass(frozen=True, kw_only=True)
class Known:
    """The law, and how far the rows behind it reach.

    Attributes:
        law: With resamples.
        parameters: Smallest and largest size.
        data: Smallest and largest amount of data.
        unit: What data are counted in.
        noise: (k,) logarithms of measured over predicted loss of the rows, for the noise of one training.
    """

    law: LossLaw
    parameters: tuple[float, float]
    data: tuple[float, float]
    unit: str
    noise: Array

    def beyond(self, parameters: Array, data: Array) -> Array:
        """How many times beyond the rows sizes and data lie, the larger of both; 1 within them."""
        outside = np.ones(np.broadcast(parameters, data).shape)
        for values, (low, high) in ((parameters, self.parameters), (data, self.data)):
            outside = np.maximum(outside, np.maximum(values / high, low / values))
        return outside


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A candidate with what a budget makes of it.

    Attributes:
        candidate: The network.
        data: What the operations buy.
        loss: What the law says.
        low: Lower end of the 90 % interval of one training's loss.
        high: Upper end.
        beyond: How many times beyond the rows its size or its data lie.
    """

    candidate: Candidate
    data: float
    loss: float
    low: float
    high: float
    beyond: float


@dataclass(frozen=True, kw_only=True)
class Map:
    """The answer over a grid of budgets.

    Attributes:
        memory: (m,) budgets in bytes, ascending.
        operations: (c,) budgets in operations, ascending.
        best: (m, c) positions of the winners among the candidates; -1 where nothing fits.
        loss: (m, c) their losses; NaN where nothing fits.
        beyond: (m, c) how many times beyond the rows they lie.
    """

    memory: Array
    operations: Array
    best: np.ndarray
    loss: Array
    beyond: Array


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """What to train.

    Attributes:
        memory: The budget in bytes.
        operations: The budget in operations.
        best: The candidate of the lowest loss that fits.
        runner_up: The best one with another strategy; None where no other fits.
        by_strategy: The best one of each strategy, by loss.
        map: The answer for other budgets around this one.
        candidates: Everything that was compared.
        unit: What data are counted in.
    """

    memory: float
    operations: float
    best: Pick
    runner_up: Pick | None
    by_strategy: tuple[Pick, ...]
    map: Map
    candidates: tuple[Candidate, ...]
    unit: str

    def changes(self) -> list[dict[str, Any]]:
        """Where the strategy of the answer changes along each side of the map, through this budget."""
        found = []
        row = int(np.abs(np.log(self.map.memory / self.memory)).argmin())
        column = int(np.abs(np.log(self.map.operations / self.operations)).argmin())
        for axis, values, line in (
            ("memory_bytes", self.map.memory, self.map.best[:, column]),
            ("operations", self.map.operations, self.map.best[row]),
        ):
            names = [None if i < 0 else self.candidates[i].strategy for i in line]
            for i in range(1, len(names)):
                if names[i] != names[i - 1]:
                    at = float(np.sqrt(values[i] * values[i - 1]))
                    found.append({"along": axis, "at": at, "from": names[i - 1], "to": names[i]})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        return {
            "memory_bytes": self.memory,
            "operations": self.operations,
            "unit": self.unit,
            "best": _pick_dict(self.best),
            "runner_up": None if self.runner_up is None else _pick_dict(self.runner_up),
            "by_strategy": [_pick_dict(pick) for pick in self.by_strategy],
            "changes": self.changes(),
            "map": {
                "memory_bytes": self.map.memory.tolist(),
                "operations": self.map.operations.tolist(),
                "candidate": self.map.best.tolist(),
                "loss": [[None if np.isnan(v) else float(v) for v in row] for row in self.map.loss],
                "beyond": self.map.beyond.tolist(),
            },
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


def frontier(
    known: Known,
    candidates: Sequence[Candidate],
    *,
    memory: float,
    operations: float,
    factor: float = FACTOR,
    extrapolate: bool = False,
) -> Frontier:
    """Find the candidate of the lowest loss within a budget.

    Args:
        known: The law.
        candidates: What could be trained.
        memory: The most bytes of a step.
        operations: The operations of the whole training, with recomputation.
        factor: How many times beyond its rows the law is trusted.
        extrapolate: Trust it everywhere.

    Returns:
        The answer.

    Raises:
        FrontierError: Nothing fits the memory; or the best that fits lies further beyond the rows than
            `factor`, and `extrapolate` is false.
    """
    if not (memory > 0 and operations > 0):
        raise FrontierError(f"memory and operations must be above 0; received {memory:g} and {operations:g}")
    if not candidates:
        raise FrontierError("there is no candidate to choose from")
    n = np.array([one.parameters for one in candidates])
    cost = np.array([one.operations for one in candidates])
    size = np.array([one.memory_bytes for one in candidates], float)
    fits = size <= memory
    if not fits.any():
        least = candidates[int(size.argmin())]
        raise FrontierError(
            f"no candidate fits {memory:,.0f} bytes: the smallest takes {least.memory_bytes:,} "
            f"({least.model}, depth {least.depth}, width {least.width:g}, {least.strategy}). Give more "
            "memory, or smaller candidates with --depth and --width"
        )
    data = operations / cost
    loss = np.where(fits, known.law.predict(n, data), np.inf)
    beyond = known.beyond(n, data)
    order = np.argsort(loss, kind="stable")
    order = order[fits[order]]
    best = int(order[0])
    if beyond[best] > factor and not extrapolate:
        raise FrontierError(_too_far(known, candidates[best], float(data[best]), float(beyond[best]), factor))

    def pick(i: int) -> Pick:
        low, high = _interval(known, float(n[i]), float(data[i]))
        return Pick(
            candidate=candidates[i],
            data=float(data[i]),
            loss=float(loss[i]),
            low=low,
            high=high,
            beyond=float(beyond[i]),
        )

    first: dict[str, int] = {}
    for i in order:
        first.setdefault(candidates[i].strategy, int(i))
    ranked = tuple(pick(i) for i in first.values())
    return Frontier(
        memory=memory,
        operations=operations,
        best=ranked[0],
        runner_up=ranked[1] if len(ranked) > 1 else None,
        by_strategy=ranked,
        map=_map(known, n, cost, size, memory=memory, operations=operations),
        candidates=tuple(candidates),
        unit=known.unit,
    )


def _map(known: Known, n: Array, cost: Array, size: Array, *, memory: float, operations: float) -> Map:
    """The winners from a thirtieth to thirty times the budget in each direction."""
    around = np.geomspace(1 / 32, 32, CELLS)
    budgets, computes = memory * around, operations * around
    data = computes[:, None] / cost
    losses = known.law.predict(n, data)  # (c, candidates)
    beyond = known.beyond(np.broadcast_to(n, data.shape), data)
    best = np.full((CELLS, CELLS), -1)
    loss = np.full((CELLS, CELLS), np.nan)
    far = np.ones((CELLS, CELLS))
    for row, budget in enumerate(budgets):
        fits = size <= budget
        if not fits.any():
            continue
        within = np.where(fits, losses, np.inf)
        best[row] = within.argmin(1)
        loss[row] = within.min(1)
        far[row] = beyond[np.arange(CELLS), best[row]]
    return Map(memory=budgets, operations=computes, best=best, loss=loss, beyond=far)


def _interval(known: Known, n: float, d: float) -> tuple[float, float]:
    """The 90 % interval of one training's loss: the law's uncertainty and the noise of its rows."""
    samples = known.law.predict_samples(n, d)[:, 0]
    noise = np.random.default_rng(0).choice(known.noise, len(samples))
    return known.law.ends(samples * np.exp(noise))


def _too_far(known: Known, best: Candidate, data: float, beyond: float, factor: float) -> str:
    sizes = f"{known.parameters[0]:.3g} to {known.parameters[1]:.3g} parameters"
    amounts = f"{known.data[0]:.3g} to {known.data[1]:.3g} {known.unit}"
    return (
        f"the best within this budget has {best.parameters:.3g} parameters and {data:.3g} {known.unit}, "
        f"{beyond:.3g} times beyond what the law has seen ({sizes}, {amounts}), and a law is trusted to "
        f"{factor:g} times. Fit one to larger trainings, give a smaller budget, or add --extrapolate"
    )


def _pick_dict(pick: Pick) -> dict[str, Any]:
    values = asdict(pick)
    return {**values.pop("candidate"), **values}
