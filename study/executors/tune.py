"""Run trials through Ray Tune: reused actors for one worker, Ray Train inside a trial for more."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from study.executors.session import Cluster
from study.executors.train import DRIVER_RESOURCES, run_trainer
from study.progress import Progress
from study.settings import ScalingSettings, Trial
from study.workers import NOT_RUN, Job, TrialActor

Lost = Callable[[Job, BaseException | None], str]
"""Writes the row of a trial whose process died and returns its outcome."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Trials of equal resources to run together, or a searcher that proposes up to `samples` of them."""

    scaling: ScalingSettings
    jobs: Sequence[Job] = ()
    searcher: Any = None
    samples: int = 0
    scheduler: Any = None


def distributed(scaling: ScalingSettings) -> bool:
    """Whether a trial runs on Ray Train rather than in one reused actor."""
    return scaling.executor == "train" or (scaling.workers > 1 and scaling.executor == "auto")


def concurrency(scaling: ScalingSettings, cluster: Cluster) -> int:
    """How many trials of this size the cluster holds at once.

    Raises
    ------
    ClusterError
        Not even one fits.
    """
    workers = scaling.workers
    return cluster.slots(cpus=scaling.cpus_per_worker * workers, gpus=scaling.gpus_per_worker * workers)


def run_batch(batch: Batch, *, cluster: Cluster, progress: Progress, lost: Lost) -> None:
    """Run every trial of a batch to its row in the store.

    Raises
    ------
    ClusterError
        The cluster is too small for one trial.
    KeyboardInterrupt
        Passed through; the rows of finished trials are in the store.
    """
    at_once = concurrency(batch.scaling, cluster)
    trainable: Any = TrialActor
    resources: dict[str, float] = {
        "cpu": batch.scaling.cpus_per_worker,
        "gpu": batch.scaling.gpus_per_worker,
    }
    if distributed(batch.scaling):
        trainable, resources = run_trainer, DRIVER_RESOURCES
    scratch = Path(tempfile.mkdtemp(prefix="revstudy-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={} if batch.searcher else {"job": tune.grid_search(list(batch.jobs))},
            tune_config=tune.TuneConfig(
                search_alg=batch.searcher,
                scheduler=batch.scheduler,
                num_samples=batch.samples if batch.searcher else 1,
                max_concurrent_trials=at_once,
                reuse_actors=not distributed(batch.scaling),
                trial_name_creator=_short_name,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                callbacks=[_Observer(progress, lost)],
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _error_of(trial: Any) -> BaseException | None:
    """The exception that ended a Tune trial; Tune keeps it in a file on the driver's machine."""
    path = Path(trial.pickled_error_file)
    if path.is_file():
        error = pickle.loads(path.read_bytes())
        return getattr(error, "cause", None) or error
    path = Path(trial.error_file)
    return RuntimeError(path.read_text()) if path.is_file() else None


class _Observer(tune.Callback):
    """Tells the progress display, and the writer of lost trials, what Tune sees."""

    def __init__(self, progress: Progress, lost: Lost) -> None:
        self._progress = progress
        self._lost = lost

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its configuration to disk for a resume that the store makes needless.
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned: Trial = trial.config["job"].trial
        self._progress.started(planned.trial_id, epochs=planned.settings.train.epochs)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "outcome" not in result and "epoch" in result:
            self._progress.epoch(trial.config["job"].trial.trial_id, epoch=result["epoch"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        outcome = (trial.last_result or {}).get("outcome", "pruned")
        self._progress.finished(trial.config["job"].trial.trial_id, outcome)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        job: Job = trial.config["job"]
        self._progress.finished(job.trial.trial_id, self._lost(job, _error_of(trial)))


__all__ = ["NOT_RUN", "Batch", "Lost", "concurrency", "distributed", "run_batch"]
