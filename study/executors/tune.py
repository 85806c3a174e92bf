"""Run trials through Ray Tune: reused actors for one worker, Ray Train inside a trial for more."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from study.cluster.session import Cluster
from study.errors import StoreError
from study.executors.actor import NOT_RUN, TrialActor
from study.executors.group import DRIVER_RESOURCES, GroupActor
from study.executors.job import Job
from study.executors.job_queue import JobQueue
from study.executors.lost import LostTrials
from study.executors.progress import ELSEWHERE, FOUND, Progress
from study.outcomes import ProcessLostError
from study.plan.concurrency import at_once
from study.ray_internals import mend_tune
from study.settings.run import ScalingSettings
from study.settings.trial import Trial
from study.train.length import evaluations


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Trials of equal resources to run together, waiting in a queue or proposed by it."""

    scaling: ScalingSettings
    queue: JobQueue
    scheduler: Any = None


def concurrency(scaling: ScalingSettings, cluster: Cluster) -> int:
    """Return how many trials of this size the cluster holds at once.

    Raises:
        ClusterError: Not even one fits.
    """

    def needs(workers: int) -> dict[str, float]:
        return {"cpus": scaling.cpus_per_worker * workers, "gpus": scaling.gpus_per_worker * workers}

    room = at_once(scaling, lambda workers: cluster.room(**needs(workers)))
    return room or cluster.slots(**needs(scaling.min_workers or scaling.workers))


def run_batch(batch: Batch, *, cluster: Cluster, progress: Progress, lost: LostTrials) -> list[Job]:
    """Run every trial of a batch to its row in the store, and return those that other runs are training.

    A trial whose process was lost is tried again, from its checkpoint, as often as `lost` allows.

    Returns:
        The jobs that other runs are training.

    Raises:
        ClusterError: The cluster is too small for one trial, or is gone.
        StoreError: The store cannot be written any more; what it has stays.
        KeyboardInterrupt: Passed through; the rows of finished trials are in the store.
    """
    mend_tune()
    side_by_side = concurrency(batch.scaling, cluster)
    trainable: Any = TrialActor
    resources: dict[str, float] = {
        "cpu": batch.scaling.cpus_per_worker,
        "gpu": batch.scaling.gpus_per_worker,
    }
    if batch.scaling.distributed:
        trainable, resources = GroupActor, DRIVER_RESOURCES
    observer = _Observer(batch.queue, cluster, progress, lost)
    scratch = Path(tempfile.mkdtemp(prefix="revstudy-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=batch.queue,
                scheduler=batch.scheduler,
                num_samples=-1,  # until the queue is finished
                max_concurrent_trials=side_by_side,
                reuse_actors=True,
                trial_name_creator=_short_name,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                callbacks=[observer],
                verbose=0,
            ),
        )
        tuner.fit()
        observer.check()
    except KeyboardInterrupt:
        lost.left = [job for job in batch.queue.training if job.trial.trial_id in progress.running]
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return observer.elsewhere


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _error_of(trial: Any) -> BaseException:
    """Return the exception that ended a Tune trial; Tune keeps it in a file on the driver's machine.

    Of those that came neither from the trial's code nor from the death of its process, Tune keeps the text:
    they are about Ray itself, such as a process that Ray ended because memory ran low.
    """
    if trial.pickled_error_file and Path(trial.pickled_error_file).is_file():
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        return getattr(error, "cause", None) or error
    text = ""
    if trial.error_file and Path(trial.error_file).is_file():
        # A heading of Tune's stands above the text.
        text = Path(trial.error_file).read_text().partition("\n")[2].strip()
    return ProcessLostError(text or "the process of the trial died")


class _Observer(tune.Callback):
    """Tells the progress display, the queue, and the writer of lost trials what Tune sees."""

    def __init__(self, queue: JobQueue, cluster: Cluster, progress: Progress, lost: LostTrials) -> None:
        self._queue = queue
        self._cluster = cluster
        self._progress = progress
        self._lost = lost
        self._fatal: StoreError | None = None
        self.elsewhere: list[Job] = []

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its configuration to disk for a resume that the store makes needless.
        return tune.Callback, ()

    def check(self) -> None:
        """Raise what ends the whole run. Of what other callbacks raise, Tune keeps the text alone."""
        if self._fatal is not None:
            raise self._fatal
        self._cluster.check()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.check()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned: Trial = trial.config["job"].trial
        self._progress.started(planned.trial_id, epochs=evaluations(planned.settings), trial=planned)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_id = trial.config["job"].trial.trial_id
        if FOUND not in result and result.get("epoch", 0) > self._progress.running.get(trial_id, 0):
            self._progress.epoch(trial_id, epoch=result["epoch"])
            self._progress.measured(trial_id, epoch=result["epoch"], numbers=result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        job: Job = trial.config["job"]
        report = trial.last_result or {}
        outcome = report.get("outcome", "pruned")
        if outcome == ELSEWHERE:
            self.elsewhere.append(job)
        if outcome == ELSEWHERE or report.get(FOUND):
            self._progress.passed(job.trial.trial_id, ELSEWHERE if outcome == ELSEWHERE else FOUND)
        else:
            self._progress.finished(job.trial.trial_id, outcome, numbers=report)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        job: Job = trial.config["job"]
        trial_id = job.trial.trial_id
        epoch = self._progress.running.get(trial_id)
        try:
            verdict = self._lost(job, _error_of(trial), epoch=epoch or 0, began=epoch is not None)
        except StoreError as error:
            self._fatal = error
            return
        if verdict.retry:
            self._queue.retry(trial.trial_id)
        else:
            self._queue.give_up(trial.trial_id)
            self._progress.finished(trial_id, verdict.outcome)


__all__ = ["NOT_RUN", "Batch", "concurrency", "run_batch"]
