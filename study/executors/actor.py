"""The reused process that trains one job after another.

It takes the lease of a trial before it trains it, goes on from the trial's checkpoint, and writes the rows to
the store before it reports to Ray, so a driver that dies loses nothing that was trained.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray import tune

from study import outcomes
from study.executors.job import Job, Watch, numbers_of, report_of, telling
from study.executors.progress import ELSEWHERE, FOUND, in_words
from study.outcomes import AbandonedError
from study.store import checkpoints
from study.store.lease import Lease
from study.store.leases import Hold, acquire
from study.store.reader import trial_rows

NOT_RUN = "not_run"
"""Reported, and never written, for a trial whose turn came after the study's time was up."""


def train_here(job: Job, watch: Watch) -> dict[str, Any]:
    """Train the job in this process, from its last checkpoint on, and return its row, which the store has.

    Returns:
        The trial's row.

    Raises:
        StoreError: The store cannot be written.
        AbandonedError: The store took no checkpoint, or another run trains this trial now.
    """
    result = job.train(
        resume=checkpoints.load(job.store, job.trial.trial_id),
        **telling(job, watch.epoch),
    )
    if not watch.is_ours():
        raise AbandonedError("another run took this trial over")
    return job.finish(result).trial


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
        """Take the trial's lease and begin; or what to report if it is not ours to train."""
        job, trial = self._job, self._job.trial
        epochs = job.evaluations
        told = in_words(trial)
        hold = acquire(job.store, trial.trial_id, study=trial.study, epochs=epochs, run=job.run, what=told)
        if isinstance(hold, Lease):
            return {"outcome": ELSEWHERE}
        try:
            rows = trial_rows(job.store, trial.trial_id)
            final = [row for row in rows if row["outcome"] in outcomes.FINAL]
            if not final and rows and rows[-1]["outcome"] == outcomes.UNFIT and not job.fits:
                final = rows  # as before: a second row would say the same
            if final:
                hold.release(done=final[-1]["outcome"] in outcomes.FINAL)
                return {**report_of(final[-1], job.objective), FOUND: True}
            attempt = max([job.attempt, *(row["attempt"] + 1 for row in rows)])
            self._training = _Training(replace(job, attempt=attempt), hold, self.trainer)
        except BaseException:
            hold.release()
            raise
        return None

    trainer = staticmethod(train_here)


class _Training:
    """One trial in a thread that waits after every epoch for leave to go on."""

    def __init__(self, job: Job, hold: Hold, train: Callable[[Job, Watch], dict[str, Any]]) -> None:
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

    def is_ours(self) -> bool:
        """Whether the trial is still ours; see `study.executors.job.Watch`."""
        return self._hold.is_ours()

    def epoch(self, row: dict[str, Any]) -> bool:
        """Report an epoch and wait for leave to go on; see `study.executors.job.Watch`."""
        if self._hold.lost:
            raise AbandonedError("another run took this trial over")
        self._hold.progress(row["epoch"], row)
        if row["epoch"] == self._job.evaluations:
            return False  # told with the trial's outcome: nobody is to stop what has come to its end
        self._reports.put(numbers_of(row, self._job.objective))
        self._leave.acquire()
        return self._stop

    def _run(self) -> None:
        try:
            self._leave.acquire()
            self._report = report_of(self._train(self._job, self), self._job.objective)
        except AbandonedError as error:
            if self._hold.lost:
                self._report = {"outcome": ELSEWHERE}
            self._error = error.__cause__ if isinstance(error.__cause__, Exception) else None
        except Exception as error:
            self._error = error
        finally:
            self._hold.release(done=(self._report or {}).get("outcome") in outcomes.FINAL)
            self._reports.put(None)
