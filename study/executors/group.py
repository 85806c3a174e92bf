"""One trial on several workers: Ray Train's `TorchTrainer`, started from inside a Tune trial.

After each epoch rank 0 tells the Tune trial its numbers through a `Mailbox` and is told whether to stop. So a
trial that Tune prunes ends by itself, on all workers after the same epoch, and rank 0 writes its row. Killing
the group instead would leave no row, and Ray without a dashboard waiting for the group's resources for ever.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from study import outcomes
from study.errors import StoreError
from study.executors.actor import TrialActor
from study.executors.job import Job, Watch, numbers_of, telling
from study.executors.lost import first_failure
from study.outcomes import AbandonedError, PeerLostError, UnfitError
from study.store import checkpoints
from study.store.reader import trial_rows
from study.store.rows import lost_result
from study.train.session import Distributed

DRIVER_RESOURCES = {"node:__internal_head__": 0.001}
"""The Tune trial only waits for its workers. If it held a CPU, trials that hold one each could wait for
workers for ever."""

COLLECTIVE_TIMEOUT_S = 300
POLL_S = 0.1
GO, STOP, ABANDON = "go", "stop", "abandon"
WRITE = "write"
"""Key of the message by which rank 0 asks whether it may write the row."""


class Mailbox:
    """Between rank 0 and the process that started the group.

    An elastic group may be started anew while its rank 0 waits for an answer: each is for one epoch alone.
    """

    def __init__(self) -> None:
        self._messages: asyncio.Queue[tuple[asyncio.Future[str], dict[str, Any]]] = asyncio.Queue()
        self._taken: asyncio.Future[str] | None = None

    async def ask(self, message: dict[str, Any]) -> str:
        """Put an epoch's numbers, or the question for leave to write; the answer is `GO`, `STOP` or
        `ABANDON`.

        Returns:
            `GO`, `STOP` or `ABANDON`.
        """
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await self._messages.put((answer, message))
        return await answer

    async def next_message(self) -> dict[str, Any]:
        """Wait for the next message."""
        self._taken, message = await self._messages.get()
        return message

    async def answer(self, answer: str) -> None:
        """Answer the message that was taken last."""
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(answer)


def train_group(job: Job, watch: Watch) -> dict[str, Any]:
    """Train the job on its workers and return its row, which the store has.

    Returns:
        The trial's row.

    Raises:
        ray.train.TrainingFailedError: A worker, its machine or the controller was lost.
        StoreError: The store cannot be written.
        AbandonedError: Another run trains this trial now; the group has ended.
    """
    import ray

    mailbox: Any = ray.remote(Mailbox).options(num_cpus=0).remote()
    abandoned: AbandonedError | None = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        training = pool.submit(_fit, job, mailbox)
        message = mailbox.next_message.remote()
        while not training.done():
            if not ray.wait([message], timeout=POLL_S)[0]:
                continue
            try:
                answer = _answer(watch, ray.get(message))
            except AbandonedError as given_up:
                abandoned, answer = given_up, ABANDON
            mailbox.answer.remote(answer)
            message = mailbox.next_message.remote()
    ray.kill(mailbox)
    if abandoned is not None:
        raise abandoned
    error = training.exception()
    rows = trial_rows(job.store, job.trial.trial_id)
    written = [row for row in rows if row["attempt"] == job.attempt]
    if written:
        return written[0]
    cause = first_failure(error)
    if isinstance(cause, StoreError):
        raise cause
    if error is None or cause is None or outcomes.worth_retrying(cause):
        raise error or PeerLostError("the group of workers ended without a row")
    state = checkpoints.load(job.store, job.trial.trial_id)
    result = lost_result(job.trial, cause, attempt=job.attempt, state=state)
    return job.finish(result).trial


def _answer(watch: Watch, message: dict[str, Any]) -> str:
    """Return what rank 0 is told.

    Raises:
        AbandonedError: Another run trains this trial now.
    """
    if WRITE not in message:
        return STOP if watch.epoch(message) else GO
    if not watch.is_ours():
        raise AbandonedError("another run took this trial over")
    return GO


class GroupActor(TrialActor):
    """Trains trials that have several workers each; the process itself only waits for them."""

    trainer = staticmethod(train_group)


def _fit(job: Job, mailbox: Any) -> None:
    # Of the second version of Ray Train, which has no types of its own under these names.
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    v2: Any = train

    scaling = job.trial.settings.scaling
    per_worker: dict[str, float] = {"CPU": scaling.cpus_per_worker}
    if scaling.gpus_per_worker:
        per_worker["GPU"] = scaling.gpus_per_worker
    scratch = Path(tempfile.mkdtemp(prefix="revstudy-train-"))
    try:
        TorchTrainer(
            train_rank,
            train_loop_config={"job": job, "mailbox": mailbox},
            torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=v2.ScalingConfig(
                num_workers=(scaling.min_workers or 1, scaling.workers)
                if scaling.elastic
                else scaling.workers,
                placement_strategy=scaling.placement,
                use_gpu=scaling.gpus_per_worker > 0,
                resources_per_worker=per_worker,
            ),
            run_config=v2.RunConfig(
                # Ray resumes a run of the same name and folder, finished or not: both are new each time.
                name=f"{job.trial.trial_id}-a{job.attempt}",
                storage_path=str(scratch),
                # The trial is tried again as a whole, from its own checkpoint and within one budget.
                failure_config=v2.FailureConfig(
                    max_failures=0, controller_failure_limit=1, max_preemption_failures=0
                ),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_shared(job: Job, place: Distributed) -> dict[str, Any] | None:
    """Return the trial's checkpoint, the same on every worker: rank 0 reads it and sends what it read.

    Workers that looked for themselves could see different files, and then wait for one another for ever.
    """
    import torch
    import torch.distributed as dist

    trial_id = job.trial.trial_id
    if place.world_size == 1:
        return checkpoints.load(job.store, trial_id)
    content = checkpoints.read(job.store, trial_id) if place.rank == 0 else None
    size = torch.tensor([len(content or b"")], device=job.device)
    dist.broadcast(size, src=0)
    if not size.item():
        return None
    data = torch.empty(int(size.item()), dtype=torch.uint8, device=job.device)
    if content is not None:
        data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(data, src=0)
    return checkpoints.parse(data.cpu().numpy().tobytes(), trial_id)


def train_rank(config: dict[str, Any]) -> None:
    """Train as one rank of a process group that Ray Train has set up; rank 0 saves and writes the rows.

    Raises:
        PeerLostError: Another worker is gone.
        UnfitError: The trial is predicted not to fit the memory of this rank's machine.
        MemoryError: This rank ran out of memory, where another may not have.
        RuntimeError: This rank failed where another may not have: the whole group must end, or
            it waits forever.
    """
    import ray
    from ray import train

    job: Job = config["job"]
    context = train.get_context()
    place = Distributed(rank=context.get_world_rank(), world_size=context.get_world_size())

    def ask(message: dict[str, Any]) -> bool:
        answer = ray.get(config["mailbox"].ask.remote(message))
        if answer == ABANDON:
            raise AbandonedError("the trial was given up")
        return bool(answer == STOP)

    first = place.rank == 0
    resume = load_shared(job, place)
    try:
        result = job.train(
            distributed=place,
            resume=resume,
            **(
                telling(job, lambda row: ask(numbers_of(row, job.objective)))
                if first
                else {"save": lambda state, epoch: None}
            ),
        )
    except AbandonedError as error:
        raise error.__cause__ or RuntimeError(str(error)) from None
    row = result.trial
    told = f"rank {place.rank}: {row['error_class']}: {row['error_message']}"
    if place.world_size > 1 and outcomes.lost_a_peer(row):
        raise PeerLostError(told)
    if first:
        try:
            ask({WRITE: True})
        except AbandonedError as error:
            raise RuntimeError(str(error)) from None
        job.finish(result)
    if row["outcome"] == outcomes.UNFIT:
        raise UnfitError(row["error_message"])
    if row["outcome"] == outcomes.OOM:
        raise MemoryError(told)
    if row["outcome"] == outcomes.FAILED:
        raise RuntimeError(told)
