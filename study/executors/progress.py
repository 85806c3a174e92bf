"""What a run tells of its trials while they run. `study.cli.bars` shows it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

FAILURES = frozenset({"diverged", "oom", "unfit", "timeout", "failed"})
"""Outcomes that count as failed. `pruned` does not: the search asked for it."""

ELSEWHERE, FOUND = "elsewhere", "found"
"""Why a run leaves a trial alone: another run is training it, or has trained it."""


class Progress:
    """Counts what happens to the trials of a run and shows nothing; base of the visible kinds."""

    def __init__(self) -> None:
        self.total = 0
        self.running: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.others: dict[str, str] = {}
        self._epochs_of: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def done(self) -> int:
        """Trials that ended, in whatever way."""
        return len(self.ended)

    @property
    def failed(self) -> int:
        """Trials that ended in one of `FAILURES`."""
        return sum(outcome in FAILURES for outcome in self.ended.values())

    def begin(self, *, trials: int, epochs: int) -> None:
        """Announce how many trials, and epochs over all of them, this run is going to train."""
        self.total = trials

    def started(self, trial_id: str, *, epochs: int) -> None:
        """Report a trial that began and is going to take `epochs` epochs."""
        self.running.setdefault(trial_id, 0)  # a trial that lost its process begins again
        self._epochs_of[trial_id] = epochs

    def epoch(self, trial_id: str, *, epoch: int) -> None:
        """Report that a running trial finished epoch number `epoch`, 1 for the first."""
        if trial_id in self.running:
            self._advance(epoch - self.running[trial_id])
            self.running[trial_id] = epoch

    def finished(self, trial_id: str, outcome: str) -> None:
        """Report the end of a trial with its outcome."""
        seen = self.running.pop(trial_id, 0)
        self.others.pop(trial_id, None)  # the other run was gone
        self.ended[trial_id] = outcome
        self._advance(self._epochs_of.pop(trial_id, seen) - seen)

    def passed(self, trial_id: str, why: str) -> None:
        """Report a trial that this run leaves alone: `ELSEWHERE` it is trained, or was `FOUND` done."""
        seen = self.running.pop(trial_id, 0)
        self.others[trial_id] = why
        self._advance(self._epochs_of.pop(trial_id, seen) - seen)

    def note(self, text: str) -> None:
        """Tell the user something that is not about one trial."""

    def close(self) -> None:
        """Leave the terminal clean."""

    def _advance(self, epochs: int) -> None:
        """Called with the number of epochs by which the run has come further."""

    def counts(self) -> str:
        """How many trials are done, running, failed and pruned, in words."""
        text = f"{self.done}/{self.total} trials done, {len(self.running)} running, {self.failed} failed"
        pruned = sum(outcome == "pruned" for outcome in self.ended.values())
        return f"{text}, {pruned} pruned" if pruned else text
