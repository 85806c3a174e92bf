"""Progress on the screen: trials done, running and failed, and the time left.

It goes to standard error, so that standard output stays free for results. The unit of the bar is one epoch of
one trial, because trials of a study differ in length.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from study.executors.progress import ELSEWHERE, Progress


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
        self._bar.update(self._task, advance=epochs, counts=self.counts(), left=self._time_left())

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
        self._console.print(f"{trial_id} {outcome}: {self.counts()}", highlight=False, soft_wrap=True)

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
