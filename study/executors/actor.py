"""A job, and the reused process that trains one after another.

It claims a trial before it trains it, goes on from the trial's checkpoint, and writes the rows to the store
before it reports to Ray, so a driver that dies loses nothing that was trained.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from ray import tune

from study import outcomes
from study.errors import StoreError
from study.outcomes import AbandonedError
from study.progress import ELSEWHERE, FOUND
from study.settings import Trial
from study.store import checkpoints
from study.store.leases import Claim, Hold, acquire
from study.store.writer import trial_rows, write_result
from study.train.build import trial_cost
from study.train.compiled import COMPILE
from study.train.trial import TrialResult, train_trial

OnEpoch = Callable[[dict[str, Any]], bool]
"""Told the numbers of an epoch; answers whether to stop."""

NOT_RUN = "not_run"
"""Reported, and never written, for a trial whose turn came after the study's time was up."""

SCORE = "score"
"""What pruning judges a trial by: validation accuracy, 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt at a trial: what to train, where its rows go, and how long it may take.

    `ends_at` is the end of the whole study in seconds since 1970, `time_s` the limit of this trial. `run`
    names the run that hands it out.
    """

    trial: Trial
    store: str
    attempt: int = 0
    ends_at: float | None = None
    time_s: float | None = None
    concurrent_trials: int = 1
    run: str = ""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``. Ray hides no GPU from a process that reserved none."""
        reserved = self.trial.settings.scaling.gpus_per_worker > 0
        return "cuda" if reserved and torch.cuda.is_available() else "cpu"

    @property
    def too_late(self) -> bool:
        """The study's time was up before the trial began."""
        return self.ends_at is not None and time.time() >= self.ends_at

    def train(self, **how: Any) -> TrialResult:
        """Train from now on, within the limits, after predicting the memory that training will take."""
        scaling = self.trial.settings.scaling
        # Thread counts belong to the thread that computes, so they are set here.
        torch.set_num_threads(max(1, int(scaling.cpus_per_worker)))
        limits = [self.ends_at, None if self.time_s is None else time.time() + self.time_s]
        trial = self.trial
        # Of a sharded network there is no more than an estimate, of a compiled one a bound.
        if scaling.parallel == "ddp" and trial.settings.memory.strategy != COMPILE:
            with contextlib.suppress(Exception):  # A trial that cannot be built says so in its own row.
                trial = replace(trial, memory_predicted_bytes=trial_cost(trial.settings).memory_bytes)
        return train_trial(
            trial,
            attempt=self.attempt,
            deadline=min((limit for limit in limits if limit is not None), default=None),
            concurrent_trials=self.concurrent_trials,
            device=self.device,
            **how,
        )

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Save a state of the training as the trial's checkpoint, unless nothing is left to train.

        Raises:
            AbandonedError: The store cannot be written: it could not take the row either.
        """
        if epoch < self.trial.settings.train.epochs:
            try:
                checkpoints.save(self.store, state)
            except StoreError as error:
                raise AbandonedError("the store takes no checkpoint") from error

    def finish(self, result: TrialResult) -> None:
        """Write the rows, and remove the checkpoint unless the trial may go on from it one day.

        Raises:
            StoreError: The store cannot be written; the checkpoint is still there.
        """
        write_result(self.store, result)
        if result.trial["outcome"] != outcomes.TIMEOUT:
            checkpoints.remove(self.store, self.trial.trial_id)


def numbers_of(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an epoch's or a trial's row, as Tune is told them."""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    score = row.get("accuracy_val")
    return {**numbers, SCORE: score if score is not None and math.isfinite(score) else 0.0}


def report_of(row: dict[str, Any]) -> dict[str, Any]:
    """What Tune and its searchers are told of a trial that ended."""
    return {**numbers_of(row), "epoch": row["epochs_done"], "outcome": row["outcome"]}


def train_here(job: Job, on_epoch: OnEpoch) -> dict[str, Any]:
    """Train the job in this process, from its last checkpoint on, and return its row, which the store has.

    Raises:
        StoreError: The store cannot be written.
        AbandonedError: The same while the trial was training, or `on_epoch` raised it.
    """
    result = job.train(
        on_epoch=on_epoch,
        save=job.save,
        resume=checkpoints.load(job.store, job.trial.trial_id),
    )
    job.finish(result)
    return result.trial


class TrialActor(tune.Trainable):
    """Trains one trial after another in one process; a step of Tune's is an epoch.

    The process has imported torch once, which takes longer than a small trial.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first job. `config` holds it under ``job``."""
        self._training: _Training | None = None
        self._job: Job = config["job"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job, after the one that was stopped early has written its rows."""
        self.cleanup()
        self._job = new_config["job"]
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next epoch or the end; the last report carries the trial's outcome."""
        if self._training is None:
            if self._job.too_late:
                return {"outcome": NOT_RUN, "done": True}
            report = self._begin()
            if report is not None:
                return {**report, "done": True}
        assert self._training is not None
        report = self._training.advance()
        if report is None:
            return {**self._training.close(), "done": True}
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing for Tune: rows and checkpoints are in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing; see `save_checkpoint`."""

    def cleanup(self) -> None:
        """End a trial that Tune stopped: it becomes a row with outcome ``pruned``."""
        if self._training is not None:
            training, self._training = self._training, None
            training.close()

    def _begin(self) -> dict[str, Any] | None:
        """Claim the trial and begin; or what to report if it is not ours to train."""
        job, trial = self._job, self._job.trial
        epochs = trial.settings.train.epochs
        hold = acquire(job.store, trial.trial_id, study=trial.study, epochs=epochs, run=job.run)
        if isinstance(hold, Claim):
            return {"outcome": ELSEWHERE}
        try:
            rows = trial_rows(job.store, trial.trial_id, attempts=job.attempt + 4)
            final = [row for row in rows if row["outcome"] in outcomes.FINAL]
            if final:
                hold.release()
                return {**report_of(final[-1]), FOUND: True}
            attempt = max([job.attempt, *(row["attempt"] + 1 for row in rows)])
            self._training = _Training(replace(job, attempt=attempt), hold, self.trainer)
        except BaseException:
            hold.release()
            raise
        return None

    trainer = staticmethod(train_here)


class _Training:
    """One trial in a thread that waits after every epoch for leave to go on."""

    def __init__(self, job: Job, hold: Hold, train: Callable[[Job, OnEpoch], dict[str, Any]]) -> None:
        self._job = job
        self._hold = hold
        self._train = train
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._leave = threading.Semaphore(0)
        self._stop = False
        self._report: dict[str, Any] | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._thread.start()

    def advance(self) -> dict[str, Any] | None:
        """The numbers of the next epoch, or None once the trial ended."""
        self._leave.release()
        return self._reports.get()

    def close(self) -> dict[str, Any]:
        """Stop after the current epoch, wait for the row, and return what is to be reported of it."""
        self._stop = True
        self._leave.release()
        self._thread.join()
        if self._report is None:
            raise self._error or RuntimeError(f"trial {self._job.trial.trial_id} left no row")
        return self._report

    def _run(self) -> None:
        try:
            self._leave.acquire()
            self._report = report_of(self._train(self._job, self._on_epoch))
        except AbandonedError as error:
            if self._hold.lost:
                self._report = {"outcome": ELSEWHERE}
            self._error = error.__cause__ if isinstance(error.__cause__, Exception) else None
        except Exception as error:
            self._error = error
        finally:
            self._hold.release()
            self._reports.put(None)

    def _on_epoch(self, row: dict[str, Any]) -> bool:
        if self._hold.lost:
            raise AbandonedError("another run took this trial over")
        self._hold.progress(row["epoch"])
        if row["epoch"] == self._job.trial.settings.train.epochs:
            return False  # told with the trial's outcome: nobody is to stop what has come to its end
        self._reports.put(numbers_of(row))
        self._leave.acquire()
        return self._stop
