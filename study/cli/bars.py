"""Progress on the screen: trials done, running and failed, the time left, and each trial that runs or ends.

It goes to standard error, so that standard output stays free for results. The unit of the bar is one epoch of
one trial, because trials of a study differ in length.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from study.cli.output import duration
from study.executors.progress import ELSEWHERE, Progress
from study.settings.trial import Trial


class BarProgress(Progress):
    """A bar for the study and a line for each running trial on a terminal, redrawn in place."""

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
        self._lines: dict[str, TaskID] = {}
        self._first_started: float | None = None

    def begin(self, *, trials: int, epochs: int) -> None:
        """Show the empty bar."""
        super().begin(trials=trials, epochs=epochs)
        self._bar.start()
        self._bar.update(self._task, total=epochs, counts="starting Ray")

    def started(self, trial_id: str, *, epochs: int, trial: Trial | None = None) -> None:
        """Count a running trial, and give it a line."""
        super().started(trial_id, epochs=epochs, trial=trial)
        if trial_id not in self._lines:
            self._lines[trial_id] = self._bar.add_task(
                "trial", total=epochs, counts=escape(self.what(trial_id)), left=""
            )
        self._first_started = self._first_started or time.monotonic()
        self._advance(0)

    def epoch(self, trial_id: str, *, epoch: int) -> None:
        """Move the line of a trial on."""
        super().epoch(trial_id, epoch=epoch)
        if trial_id in self._lines:
            self._bar.update(self._lines[trial_id], completed=epoch)

    def finished(self, trial_id: str, outcome: str, *, numbers: Mapping[str, Any] | None = None) -> None:
        """Take the line of a trial away."""
        super().finished(trial_id, outcome, numbers=numbers)
        self._drop(trial_id)

    def passed(self, trial_id: str, why: str) -> None:
        """Take the line of a trial away that is another run's."""
        super().passed(trial_id, why)
        self._drop(trial_id)

    def _drop(self, trial_id: str) -> None:
        if trial_id in self._lines:
            self._bar.remove_task(self._lines.pop(trial_id))

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(f"revstudy: {text}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Erase the bar."""
        super().close()
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

    def finished(self, trial_id: str, outcome: str, *, numbers: Mapping[str, Any] | None = None) -> None:
        """Print which of how many it is, what it was, how it ended, its score, memory and time."""
        super().finished(trial_id, outcome, numbers=numbers)
        ended = ", ".join([outcome, *_figures(numbers or {})])
        self._say(f"{self.done}/{self.total} {self.what(trial_id)}: {ended}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        """Print it as a line."""
        self._say(f"revstudy: {text}")

    def passed(self, trial_id: str, why: str) -> None:
        """Print the trial, and that it is another run's."""
        super().passed(trial_id, why)
        told = "is being trained" if why == ELSEWHERE else "was trained meanwhile"
        self._say(f"{self.what(trial_id)} {told} by another run")


def _figures(numbers: Mapping[str, Any]) -> list[str]:
    """Score, peak of memory and time of a trial as far as they are known, for a line."""
    from analysis.score import scored
    from analysis.stats import finite
    from analysis.wording import bytes_text

    found = [score] if (score := scored(numbers)) else []
    if finite(peak := numbers.get("memory_peak_bytes")) and peak > 0:
        found.append(bytes_text(peak))
    if finite(seconds := numbers.get("wall_s")):
        found.append(f"{seconds:.1f} s" if seconds < 10 else duration(round(seconds)).replace(".0 s", " s"))
    return found


def terminal_progress() -> Progress:
    """A bar if standard error is a terminal, else a line per trial."""
    console = Console(stderr=True)
    return BarProgress(console) if sys.stderr.isatty() else LineProgress(console)
