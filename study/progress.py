"""What the user sees while trials run: done, running, failed, time left.

Progress goes to standard error, so that standard output stays free for results. The unit of the bar is one
epoch of one trial, because trials of a study differ in length.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

FAILURES = frozenset({"diverged", "oom", "timeout", "failed"})
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
        """Move the bar by `epochs`."""

    def _counts(self) -> str:
        text = f"{self.done}/{self.total} trials done, {len(self.running)} running, {self.failed} failed"
        pruned = sum(outcome == "pruned" for outcome in self.ended.values())
        return f"{text}, {pruned} pruned" if pruned else text


class BarProgress(Progress):
    """One bar on a terminal, redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bar = Bar(
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("study", total=None, counts="", left="")
        self._first_started: float | None = None

    def begin(self, *, trials: int, epochs: int) -> None:
        """Show the empty bar."""
        super().begin(trials=trials, epochs=epochs)
        self._bar.start()
        self._bar.update(self._task, total=epochs, counts="starting Ray")

    def started(self, trial_id: str, *, epochs: int) -> None:
        """Count a running trial."""
        super().started(trial_id, epochs=epochs)
        self._first_started = self._first_started or time.monotonic()
        self._advance(0)

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(f"revstudy: {text}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Erase the bar."""
        self._bar.stop()

    def _advance(self, epochs: int) -> None:
        self._bar.update(self._task, advance=epochs, counts=self._counts(), left=self._time_left())

    def _time_left(self) -> str:
        """Time since the first trial began, times epochs left over epochs done."""
        task = self._bar.tasks[0]
        if not task.completed or not task.total or self._first_started is None:
            return ""
        elapsed = time.monotonic() - self._first_started
        seconds = max(0, round(elapsed * (task.total - task.completed) / task.completed))
        return f"about {seconds // 60}:{seconds % 60:02d} left"


class LineProgress(Progress):
    """One line per finished trial, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def finished(self, trial_id: str, outcome: str) -> None:
        """Print the trial, its outcome and the counts."""
        super().finished(trial_id, outcome)
        self._console.print(f"{trial_id} {outcome}: {self._counts()}", highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print it as a line."""
        self._console.print(f"revstudy: {text}", highlight=False, soft_wrap=True)

    def passed(self, trial_id: str, why: str) -> None:
        """Print the trial, and that it is another run's."""
        super().passed(trial_id, why)
        told = "is being trained" if why == ELSEWHERE else "was trained meanwhile"
        self._console.print(f"{trial_id} {told} by another run", highlight=False, soft_wrap=True)


def terminal_progress() -> Progress:
    """A bar if standard error is a terminal, else a line per trial."""
    console = Console(stderr=True)
    return BarProgress(console) if sys.stderr.isatty() else LineProgress(console)
