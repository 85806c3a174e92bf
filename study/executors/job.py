"""A job: one attempt at a trial, with all that a process needs to train it and to keep its results."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import torch

from study import outcomes
from study.errors import StoreError, StudyError
from study.identity import strategy_of
from study.outcomes import AbandonedError, UnfitError
from study.plan.cost import trial_cost
from study.plan.machine import this_machine
from study.settings.trial import Trial
from study.store import checkpoints
from study.store.rows import TrialResult, lost_result, with_metrics
from study.store.writer import AttemptTakenError, write_result
from study.train.length import evaluations
from study.train.trial import train_trial

SCORE = "score"
"""What pruning judges a trial by where there is one objective: its value so far, the greater the better."""
WORST = -1e30
"""The score where the objective has no finite value. Tune averages scores, so this one is finite."""


class Watch(Protocol):
    """Whoever hands a job out, as the process that trains it sees it."""

    def epoch(self, row: dict[str, Any]) -> bool:
        """Take the numbers of an epoch; the answer is whether to stop.

        Raises:
            AbandonedError: Another run trains this trial now.
        """

    def is_ours(self) -> bool:
        """Whether the trial is still ours, so that its row may be written."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt at a trial: what to train, where its rows go, and how long it may take.

    `ends_at` is the end of the whole study in seconds since 1970, `time_s` the limit of this trial. `run`
    names the run that hands it out. `may_not_fit` trains what is predicted not to fit the memory. `objective`
    is the column by which pruning judges the trial, and ``max`` or ``min``.
    """

    trial: Trial
    store: str
    attempt: int = 0
    ends_at: float | None = None
    time_s: float | None = None
    concurrent_trials: int = 1
    run: str = ""
    may_not_fit: bool = False
    objective: tuple[str, str] = ("accuracy_val", "max")

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``. Ray hides no GPU from a process that reserved none."""
        reserved = self.trial.settings.scaling.gpus_per_worker > 0
        return "cuda" if reserved and torch.cuda.is_available() else "cpu"

    @property
    def evaluations(self) -> int:
        """How often the trial is evaluated; 1 of one that cannot be trained, as its own row will say."""
        with contextlib.suppress(StudyError):
            return evaluations(self.trial.settings)
        return 1

    @property
    def too_late(self) -> bool:
        """The study's time was up before the trial began."""
        return self.ends_at is not None and time.time() >= self.ends_at

    def train(self, **how: Any) -> TrialResult:
        """Train from now on, within the limits, after predicting the memory that training will take.

        Returns:
            The trial's rows. One that is predicted not to fit this machine ends as ``unfit`` at once.
        """
        scaling = self.trial.settings.scaling
        # Thread counts belong to the thread that computes, so they are set here.
        torch.set_num_threads(max(1, int(scaling.cpus_per_worker)))
        limits = [self.ends_at, None if self.time_s is None else time.time() + self.time_s]
        trial = self.predicted
        if why := self._lack(trial):
            return lost_result(trial, UnfitError(why), attempt=self.attempt, started_at=datetime.now(UTC))
        result = train_trial(
            trial,
            attempt=self.attempt,
            deadline=min((limit for limit in limits if limit is not None), default=None),
            device=self.device,
            **how,
        )
        result.trial["concurrent_trials"] = self.concurrent_trials
        return result

    @property
    def fits(self) -> bool:
        """Whether this machine has the memory that the trial is predicted to take, or it may be tried."""
        return not self._lack(self.predicted)

    @property
    def predicted(self) -> Trial:
        """The trial with the memory that a step of it will take, where that can be told exactly."""
        trial = self.trial
        # Of a sharded network there is no more than an estimate, of a compiled one a bound.
        if trial.settings.scaling.parallel == "ddp" and strategy_of(trial.settings).predicts_exactly:
            with contextlib.suppress(Exception):  # A trial that cannot be built says so in its own row.
                return replace(trial, memory_predicted_bytes=trial_cost(trial.settings).memory_bytes)
        return trial

    def _lack(self, trial: Trial) -> str:
        strategy = strategy_of(trial.settings)
        if self.may_not_fit or trial.settings.scaling.parallel != "ddp" or not strategy.predicts_exactly:
            return ""
        return this_machine().lacks(trial.memory_predicted_bytes, on_gpu=self.device == "cuda")

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Save a state of the training as the trial's checkpoint, unless nothing is left to train.

        Raises:
            AbandonedError: The store cannot be written: it could not take the row either.
        """
        if epoch < self.evaluations:
            try:
                checkpoints.save(self.store, state)
            except StoreError as error:
                raise AbandonedError("the store takes no checkpoint") from error

    def finish(self, result: TrialResult) -> TrialResult:
        """Write the rows, and remove the checkpoint unless the trial may go on from it one day.

        Returns:
            The rows as they were written: another process may have taken the number of this attempt, which is
            then the next free one.

        Raises:
            StoreError: The store cannot be written; the checkpoint is still there.
        """
        while True:
            try:
                write_result(self.store, result)
                break
            except AttemptTakenError:
                result = result.as_attempt(result.trial["attempt"] + 1)
        if result.trial["outcome"] not in (outcomes.TIMEOUT, outcomes.UNFIT):
            checkpoints.remove(self.store, self.trial.trial_id)
        return result


def telling(job: Job, on_epoch: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Let a training tell what is known of the trial, such as its memory, beside each epoch's own numbers.

    A search may judge by it.

    Args:
        job: What is trained.
        on_epoch: Is told; it answers whether to stop.

    Returns:
        The arguments `save` and `on_epoch` of the training.
    """
    known: dict[str, Any] = {}

    def save(state: dict[str, Any], epoch: int) -> None:
        known.update(state["columns"])
        job.save(state, epoch)

    def tell(row: dict[str, Any]) -> bool:
        return on_epoch({**known, **{name: value for name, value in row.items() if value is not None}})

    return {"save": save, "on_epoch": tell}


def numbers_of(row: dict[str, Any], objective: tuple[str, str]) -> dict[str, Any]:
    """Return the numbers of an epoch's or a trial's row, as Tune is told them, with the `SCORE`.

    Args:
        row: The row.
        objective: The column by which pruning judges, and ``max`` or ``min``.
    """
    numbers = {name: value for name, value in with_metrics(row).items() if isinstance(value, int | float)}
    name, direction = objective
    value = numbers.get(name)
    score = WORST if value is None or not math.isfinite(value) else value if direction == "max" else -value
    return {**numbers, SCORE: score}


def report_of(row: dict[str, Any], objective: tuple[str, str]) -> dict[str, Any]:
    """Return what Tune and its searchers are told of a trial that ended; see `numbers_of`."""
    return {**numbers_of(row, objective), "epoch": row["epochs_done"], "outcome": row["outcome"]}
