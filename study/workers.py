"""What runs inside Ray's processes: a reused actor that trains trials, and one rank of a distributed trial.

Both write the trial's rows to the store before they report to Ray, so a driver that dies loses nothing that
was trained.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from ray import tune

from study.build import trial_cost
from study.record import write_result
from study.settings import Trial
from study.train import Distributed, TrialResult, train_trial

NOT_RUN = "not_run"
"""Reported, and never written, for a trial whose turn came after the study's time was up."""

SCORE = "score"
"""What pruning judges a trial by: validation accuracy, 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt at a trial: what to train, where its rows go, and how long it may take.

    `ends_at` is the end of the whole study in seconds since 1970, `time_s` the limit of this trial.
    """

    trial: Trial
    store: str
    attempt: int = 0
    ends_at: float | None = None
    time_s: float | None = None
    concurrent_trials: int = 1

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
        with contextlib.suppress(Exception):  # A trial that cannot be built says so in its own row.
            trial = replace(trial, memory_predicted_bytes=trial_cost(trial.settings).memory_bytes)
        return train_trial(
            trial,
            attempt=self.attempt,
            deadline=min((limit for limit in limits if limit is not None), default=None),
            concurrent_trials=self.concurrent_trials,
            # Ray hides no GPU from a process that reserved none.
            device=None if scaling.gpus_per_worker else "cpu",
            **how,
        )


def numbers_of(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an epoch's or a trial's row, as Tune is told them."""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    score = row.get("accuracy_val")
    return {**numbers, SCORE: score if score is not None and math.isfinite(score) else 0.0}


def report_of(row: dict[str, Any]) -> dict[str, Any]:
    """What Tune and its searchers are told of a trial that ended."""
    return {**numbers_of(row), "epoch": row["epochs_done"], "outcome": row["outcome"]}


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
            self._training = _Training(self._job)
        report = self._training.advance()
        if report is None:
            return {**report_of(self._training.close().trial), "done": True}
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: rows are in the store, and a trial that lost its process starts afresh."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing; see `save_checkpoint`."""

    def cleanup(self) -> None:
        """End a trial that Tune stopped: it becomes a row with outcome ``pruned``."""
        if self._training is not None:
            self._training.close()
            self._training = None


class _Training:
    """One trial in a thread that waits after every epoch for leave to go on."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._leave = threading.Semaphore(0)
        self._stop = False
        self._result: TrialResult | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._thread.start()

    def advance(self) -> dict[str, Any] | None:
        """The numbers of the next epoch, or None once the trial ended."""
        self._leave.release()
        return self._reports.get()

    def close(self) -> TrialResult:
        """Stop after the current epoch, wait for the row, and return it."""
        self._stop = True
        self._leave.release()
        self._thread.join()
        if self._result is None:
            raise RuntimeError(f"trial {self._job.trial.trial_id} left no row") from self._error
        return self._result

    def _run(self) -> None:
        try:
            self._leave.acquire()
            result = self._job.train(on_epoch=self._on_epoch)
            write_result(self._job.store, result)
            self._result = result
        except BaseException as error:
            self._error = error
        finally:
            self._reports.put(None)

    def _on_epoch(self, row: dict[str, Any]) -> bool:
        self._reports.put(numbers_of(row))
        self._leave.acquire()
        return self._stop


def train_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Train as one rank of a process group that Ray Train has set up; rank 0 writes the rows.

    Returns
    -------
    dict
        What `report_of` makes of the trial's row.

    Raises
    ------
    RuntimeError
        This rank failed where rank 0 may not have: the whole group must end, or it waits forever.
    """
    from ray import train

    job: Job = config["job"]
    context = train.get_context()
    place = Distributed(rank=context.get_world_rank(), world_size=context.get_world_size())
    result = job.train(distributed=place)
    row = result.trial
    if place.rank == 0:
        write_result(job.store, result)
    elif row["outcome"] == "failed":
        raise RuntimeError(f"rank {place.rank}: {row['error_class']}: {row['error_message']}")
    return report_of(row)
