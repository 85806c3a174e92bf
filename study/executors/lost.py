"""Rows for trials whose process died before it could write one; the driver writes them."""

from __future__ import annotations

import re
from pathlib import Path

from study import outcomes
from study.record import attempts, lost_result, read_rows, write_result
from study.workers import Job

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


class LostTrials:
    """Writes the row of each trial whose process died, and says how the trial ended.

    A process that dies says nothing about why. If the kernel's count of processes killed for lack of memory
    has grown since the last look, the trial counts as out of memory.
    """

    def __init__(self) -> None:
        self._kills = oom_kills()

    def __call__(self, job: Job, error: BaseException | None) -> str:
        """Write the row, unless the process managed to, and return the outcome."""
        trial_id = job.trial.trial_id
        if attempts(job.store).get(trial_id, 0) > job.attempt:
            return str(read_rows(job.store)[trial_id]["outcome"])
        kills, before = oom_kills(), self._kills
        self._kills = kills
        error = first_failure(error)
        died = error is None or outcomes.worth_retrying(error)
        result = lost_result(
            job.trial,
            error,
            attempt=job.attempt,
            outcome=outcomes.OOM if died and kills > before else None,
        )
        if died and error is not None:
            result.trial["error_message"] = cause_of_death(error)
        write_result(job.store, result)
        return str(result.trial["outcome"])


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
    first = text.strip().partition("\n")[0]
    return f"{first} {detail.group().strip()}" if detail else first
