"""Stopping of unpromising trials where there are several objectives: by non-dominated rank at equal epochs.

It is asynchronous successive halving with another order. At each rung, an epoch, the trials that have reached
it are sorted into fronts, and within a front by how much room is around them. The best share goes on. The
idea is MO-ASHA (Schmucker et al. 2021); crowding is that of NSGA-II (Deb et al. 2002).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

Values = Mapping[str, Any]
Point = tuple[float, ...]
Bracket = dict[int, dict[str, Values]]
"""Of each rung, the values of each trial that has reached it."""


class ParetoPruning(FIFOScheduler):  # type: ignore[misc, unused-ignore]
    """Stops a trial whose rank at a rung is not among the best `keep` of those that reached the rung.

    Args:
        objectives: ``max`` or ``min`` for each column.
        brackets: The rungs, epochs in rising order. Trials take the brackets in turn.
        keep: The share that goes on from a rung.
        startup: Trials that reach a rung before anything is stopped there.
    """

    def __init__(
        self,
        objectives: Mapping[str, str],
        *,
        brackets: Sequence[Sequence[int]],
        keep: float,
        startup: int = 0,
    ) -> None:
        super().__init__()
        self._objectives = dict(objectives)
        self._keep = keep
        self._startup = startup
        empty: list[Bracket] = [{epoch: {} for epoch in rungs} for rungs in brackets]
        self._brackets = itertools.cycle(empty)
        self._bracket_of: dict[str, Bracket] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its configuration to disk for a resume that the store makes needless.
        return FIFOScheduler, ()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give the trial its bracket."""
        self._bracket_of[trial.trial_id] = next(self._brackets)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a trial that has come to a rung; between rungs it goes on."""
        rungs, epoch = self._bracket_of[trial.trial_id], result.get("epoch", 0)
        reached = [rung for rung in rungs if rung <= epoch]
        if not reached or trial.trial_id in (others := rungs[max(reached)]):
            return str(TrialScheduler.CONTINUE)
        others[trial.trial_id] = {name: result.get(name) for name in self._objectives}
        if len(others) <= self._startup:
            return str(TrialScheduler.CONTINUE)
        better = better_than_last(list(others.values()), self._objectives)
        goes_on = better < math.ceil(self._keep * len(others))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


def better_than_last(trials: Sequence[Values], objectives: Mapping[str, str]) -> int:
    """Return how many of some trials rank before the last of them: on an earlier front, or with more room.

    An objective that some trial has not yet is left out; so the trials are compared by what all of them have.
    A value that is no number is the worst. A network that rebuilds nothing has no reconstruction error.

    Args:
        trials: The objectives' values of each trial.
        objectives: ``max`` or ``min`` for each of them.
    """
    columns = []
    for name, direction in objectives.items():
        missing = 0.0 if name == "reconstruction_rel_error" else None
        values: list[Any] = [missing if trial.get(name) is None else trial[name] for trial in trials]
        if None not in values:
            costs = [-value if direction == "max" else value for value in values]
            worst = max(filter(math.isfinite, costs), default=0.0) + 1.0
            columns.append([cost if math.isfinite(cost) else worst for cost in costs])
    points = list(zip(*columns, strict=True)) or [()] * len(trials)
    ranks = ranks_of(points)
    front = [point for point, rank in zip(points, ranks, strict=True) if rank == ranks[-1]]
    room = crowding(front)
    return sum(rank < ranks[-1] for rank in ranks) + sum(of > room[-1] for of in room)


def ranks_of(points: Sequence[Point]) -> list[int]:
    """Return the front of each point: 0 if no other is better, 1 if none of the rest is, and so on.

    Args:
        points: Of each the costs, finite; all are to be as small as can be.
    """
    ranks: dict[Point, int] = {}
    left, rank = set(points), 0
    while left:
        front = {point for point in left if not any(_dominates(other, point) for other in left)}
        ranks.update(dict.fromkeys(front, rank))
        left, rank = left - front, rank + 1
    return [ranks[point] for point in points]


def _dominates(one: Point, other: Point) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def crowding(front: Sequence[Point]) -> list[float]:
    """Return the room around each point of one front: the distance between its neighbours in each objective.

    Each distance is a part of the front's extent. The room of the best and the worst in an objective is
    endless.
    """
    room = [0.0] * len(front)
    for values in zip(*front, strict=True):
        order = sorted(range(len(front)), key=lambda i: values[i])
        low, high = values[order[0]], values[order[-1]]
        if low == high:
            continue
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            room[i] += (values[after] - values[before]) / (high - low)
        room = [math.inf if values[i] in (low, high) else room[i] for i in range(len(front))]
    return room
