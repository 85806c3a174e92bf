"""Jobs that wait for Tune, among them again those whose process was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from study.executors.job import Job


class JobQueue(Searcher):
    """Hands out jobs to Tune one after another, and lost ones again if it is told to.

    Tune could repeat a trial by itself. But it would repeat every error alike, and tell nobody.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        super().__init__()
        self._waiting: deque[Job] = deque(jobs)
        self._handed: dict[str, Job] = {}
        self._lost: dict[str, Job] = {}
        self._dry = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its configuration to disk for a resume that the store makes needless.
        return Searcher, ()

    def suggest(self, trial_id: str) -> Any:
        """The next trial to train as ``{"job": Job}``, None to wait for one, or `Searcher.FINISHED`."""
        job = self._waiting.popleft() if self._waiting else None if self._dry else self.propose()
        if job is None:
            self._dry = True
            return None if self._handed or self._lost else Searcher.FINISHED
        self._handed[trial_id] = job
        return {"job": job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ignore epochs: pruning is the scheduler's."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the end of a trial; of one that was lost, `retry` or `give_up` follows."""
        job = self._handed.pop(trial_id)
        if error:
            self._lost[trial_id] = job
        else:
            self.ended(job, result)

    def retry(self, trial_id: str) -> None:
        """Hand the job of a lost trial out again, as the next attempt."""
        job = self._lost.pop(trial_id)
        self._waiting.appendleft(replace(job, attempt=job.attempt + 1))

    def give_up(self, trial_id: str) -> None:
        """Let a lost trial be."""
        self.ended(self._lost.pop(trial_id), None)

    @property
    def training(self) -> list[Job]:
        """The jobs that are handed out now."""
        return list(self._handed.values())

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing; see `save`."""

    def propose(self) -> Job | None:
        """A job beyond those that wait; after a None it is not asked again."""
        return None

    def ended(self, job: Job, result: dict[str, Any] | None) -> None:
        """Called when a job has ended, with what it reported last; None if it was lost."""
