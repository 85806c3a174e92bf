"""Rows for trials whose process died before it could write one; the driver writes them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import outcomes
from study.errors import StoreError
from study.executors.job import Job
from study.store import checkpoints
from study.store.leases import read_leases
from study.store.reader import trial_rows
from study.store.rows import TrialResult, lost_result
from study.store.writer import AttemptTakenError, write_result

RETRIES = 3
"""How often in a row a run tries a trial again whose process was lost, without one more epoch done."""

GONE_S = 10.0
"""How long an interrupted run waits for the processes of its trials to end."""

_MONITOR_TEXTS = ("NODE_OUT_OF_MEMORY", "running low on memory", "memory pressure")
_COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory, as far as it tells."""
    total = 0
    for path in _COUNTERS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return total


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a lost trial stands: its outcome so far, and whether to try it again."""

    outcome: str
    retry: bool = False


class LostTrials:
    """Writes the row of each trial whose process died, and says how the trial ended.

    A process that dies says nothing about why. If the kernel's count of processes killed for lack of memory
    has grown since the last look, or Ray says that it killed the process for that, the trial counts as out of
    memory, and is not tried again: it would need as much memory again.
    """

    def __init__(self) -> None:
        self._kills = oom_kills()
        self._tries: dict[str, tuple[int, int]] = {}
        self.left: list[Job] = []  # by an interrupt, while they were training

    def __call__(
        self, job: Job, error: BaseException | None, *, epoch: int = 0, began: bool = True
    ) -> Verdict:
        """Write the row, unless the process managed to, and judge the trial.

        `epoch` is the last it reported. A process that died before its trial began did not lack the memory
        for that trial.

        Returns:
            How the trial ended, and whether it is to be tried again.

        Raises:
            StoreError: That is what ended the trial: the store cannot be written.
        """
        trial_id = job.trial.trial_id
        error = first_failure(error)
        if isinstance(error, StoreError):
            raise error
        if written := _rows_since(job):
            return Verdict(outcome=str(written[-1]["outcome"]))
        kills, before = oom_kills(), self._kills
        self._kills = kills
        died = error is None or outcomes.worth_retrying(error)
        low = kills > before or any(text in str(error) for text in _MONITOR_TEXTS)
        oom = died and began and low
        result = lost_result(
            job.trial,
            error,
            attempt=job.attempt,
            outcome=outcomes.OOM if oom else None,
            state=checkpoints.load(job.store, trial_id),
        )
        if died and error is not None:
            result.trial["error_message"] = cause_of_death(error)
        while not _written(job.store, result):
            if written := _rows_since(job):  # by the process in its last moment, or by another run
                return Verdict(outcome=str(written[-1]["outcome"]))
            result = result.as_attempt(result.trial["attempt"] + 1)  # there is a file, and it is damaged
        again = died and not oom and self._within_budget(trial_id, epoch)
        return Verdict(outcome=str(result.trial["outcome"]), retry=again)

    def interrupted(self, why: BaseException) -> None:
        """Write the rows of the trials that were `left` when the user ended the run; a later one goes on.

        None is written for a trial that came to its end after all, or whose process cannot be seen to be
        gone: it may still write the row itself.

        Raises:
            StoreError: The store cannot be written.
        """
        ends_at = time.monotonic() + GONE_S
        for job in self.left:
            trial_id = job.trial.trial_id
            while trial_id in (leased := read_leases(job.store)) and time.monotonic() < ends_at:
                time.sleep(0.1)
            if trial_id not in leased and not _rows_since(job):
                state = checkpoints.load(job.store, trial_id)
                result = lost_result(job.trial, why, attempt=job.attempt, state=state)
                while not _written(job.store, result) and not _rows_since(job):
                    result = result.as_attempt(result.trial["attempt"] + 1)

    def _within_budget(self, trial_id: str, epoch: int) -> bool:
        """Return whether a trial that was lost after an epoch may be tried again.

        A trial that goes on costs time alone, so only tries that did not get further count.
        """
        furthest, tries = self._tries.get(trial_id, (0, 0))
        tries = 1 if epoch > furthest else tries + 1
        self._tries[trial_id] = max(epoch, furthest), tries
        return tries <= RETRIES


def _written(store: str, result: TrialResult) -> bool:
    """Write the rows of an attempt unless there is a file of that attempt."""
    try:
        write_result(store, result)
    except AttemptTakenError:
        return False
    return True


def _rows_since(job: Job) -> list[dict[str, Any]]:
    """The rows of this attempt at the job's trial and of later ones, found by the names of their files."""
    rows = trial_rows(job.store, job.trial.trial_id)
    return [row for row in rows if row["attempt"] >= job.attempt or row["outcome"] in outcomes.FINAL]


def first_failure(error: BaseException | None) -> BaseException | None:
    """The exception behind Ray's wrappings: of a task its cause, of a group of workers the lowest rank's."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        return first_failure(failures[min(failures)])
    cause = getattr(error, "cause", None)
    return first_failure(cause) if isinstance(cause, BaseException) else error


def cause_of_death(error: BaseException) -> str:
    """What Ray says of a dead process, without the addresses, numbers and paths of the machine."""
    text = str(error)
    detail = re.search(r"Worker exit type: .*?(?=Some common causes|$)", text, flags=re.DOTALL)
    first = re.split(r"\.?\n|\. Memory on the node", text.strip())[0]
    return f"{first} {detail.group().strip()}" if detail else first
