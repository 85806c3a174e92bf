"""One trial on several workers: Ray Train's `TorchTrainer` with DDP, started from inside a Tune trial."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from study.workers import NOT_RUN, Job, train_rank

DRIVER_RESOURCES = {"node:__internal_head__": 0.001}
"""The Tune trial only waits for its workers. If it held a CPU, trials that hold one each could wait for
workers for ever."""

COLLECTIVE_TIMEOUT_S = 300


def run_trainer(config: dict[str, Any]) -> None:
    """Train the job in ``config["job"]`` on its workers and report its row's numbers to Tune.

    Rank 0 writes the rows. A run that fails is not repeated here: outcomes such as a diverged loss come
    back the same, and a lost process is a row of its own.

    Raises
    ------
    ray.train.TrainingFailedError
        A worker or the controller died.
    """
    from ray import tune
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    job: Job = config["job"]
    if job.too_late:
        tune.report({"outcome": NOT_RUN})
        return
    scaling = job.trial.settings.scaling
    per_worker: dict[str, float] = {"CPU": scaling.cpus_per_worker}
    if scaling.gpus_per_worker:
        per_worker["GPU"] = scaling.gpus_per_worker
    scratch = Path(tempfile.mkdtemp(prefix="revstudy-train-"))
    try:
        trainer = TorchTrainer(
            train_rank,
            train_loop_config={"job": job},
            torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=ScalingConfig(
                num_workers=scaling.workers,
                use_gpu=scaling.gpus_per_worker > 0,
                resources_per_worker=per_worker,
            ),
            run_config=RunConfig(
                # Ray resumes a run of the same name and folder, finished or not: both are new each time.
                name=f"{job.trial.trial_id}-a{job.attempt}",
                storage_path=str(scratch),
                failure_config=FailureConfig(
                    max_failures=0, controller_failure_limit=1, max_preemption_failures=0
                ),
            ),
        )
        result: Any = trainer.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tune.report(result.return_value)
