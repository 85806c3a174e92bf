"""What a run tells of its trials while they run. `study.cli.bars` shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from study.executors.loggers import Logger, numbers_in
from study.settings.trial import Trial

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
        self._what: dict[str, str] = {}
        self._logged: dict[str, tuple[int, frozenset[str]]] = {}
        self.loggers: list[Logger] = []

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

    def started(self, trial_id: str, *, epochs: int, trial: Trial | None = None) -> None:
        """Report a trial that began and is going to take `epochs` epochs; `trial` is what it is."""
        self.running.setdefault(trial_id, 0)  # a trial that lost its process begins again
        if trial is not None:
            self._what[trial_id] = in_words(trial)
            self._log(lambda logger: logger.started(trial, self._what[trial_id]))
        self._epochs_of[trial_id] = epochs

    def epoch(self, trial_id: str, *, epoch: int) -> None:
        """Report that a running trial finished epoch number `epoch`, 1 for the first."""
        if trial_id in self.running:
            self._advance(epoch - self.running[trial_id])
            self.running[trial_id] = epoch

    def finished(self, trial_id: str, outcome: str, *, numbers: Mapping[str, Any] | None = None) -> None:
        """Report the end of a trial with its outcome, and the numbers of its row where they are known."""
        seen = self.running.pop(trial_id, 0)
        if numbers:
            self.measured(trial_id, epoch=int(numbers.get("epoch") or seen), numbers=numbers)
        self._log(lambda logger: logger.finished(trial_id, outcome))
        self.others.pop(trial_id, None)  # the other run was gone
        self.ended[trial_id] = outcome
        self._advance(self._epochs_of.pop(trial_id, seen) - seen)

    def measured(self, trial_id: str, *, epoch: int, numbers: Mapping[str, Any]) -> None:
        """Report the numbers of an evaluation of a running trial, by column, to those who log them."""
        if not self.loggers:
            return
        told, names = self._logged.get(trial_id, (epoch, frozenset()))
        known = names if told == epoch else frozenset()  # the last evaluation comes again with the row
        found = {name: value for name, value in numbers_in(numbers).items() if name not in known}
        self._logged[trial_id] = epoch, known | found.keys()
        self._log(lambda logger: logger.measured(trial_id, epoch, found))

    def passed(self, trial_id: str, why: str) -> None:
        """Report a trial that this run leaves alone: `ELSEWHERE` it is trained, or was `FOUND` done."""
        seen = self.running.pop(trial_id, 0)
        self._log(lambda logger: logger.finished(trial_id, why))
        self.others[trial_id] = why
        self._advance(self._epochs_of.pop(trial_id, seen) - seen)

    def note(self, text: str) -> None:
        """Tell the user something that is not about one trial."""

    def close(self) -> None:
        """Leave the terminal clean, and end what is logged."""
        self._log(lambda logger: logger.close())

    def _log(self, tell: Callable[[Logger], None]) -> None:
        """Tell every logger. One that fails is dropped with a note: the rows are in the store."""
        for logger in list(self.loggers):
            try:
                tell(logger)
            except Exception as error:
                self.loggers.remove(logger)
                self.note(
                    f"{type(logger).__name__} failed, and is told nothing more; the store has every row "
                    f"({type(error).__name__}: {error})"
                )

    def _advance(self, epochs: int) -> None:
        """Called with the number of epochs by which the run has come further."""

    def what(self, trial_id: str) -> str:
        """A trial in a few words; its id, where nobody has said more."""
        return self._what.get(trial_id, trial_id)

    def counts(self) -> str:
        """How many trials are done, running, failed and pruned, in words."""
        text = f"{self.done}/{self.total} trials done, {len(self.running)} running, {self.failed} failed"
        pruned = sum(outcome == "pruned" for outcome in self.ended.values())
        return f"{text}, {pruned} pruned" if pruned else text


def in_words(trial: Trial) -> str:
    """What a trial is, in a line of a log: network, depth, width, strategy, precision and seed."""
    model, precision = trial.settings.model, trial.settings.precision
    parts = [model.name]
    if model.depth is not None:
        parts.append(f"d{model.depth}")
    parts.append(model.coupling_text or "")
    parts += [f"w{model.width:g}", trial.settings.memory.strategy or "", precision.compute]
    if precision.stream != precision.compute:
        parts.append(f"on {precision.stream}")
    if precision.coupling != "additive":
        parts.append(precision.coupling)
    return " ".join([*filter(None, parts), f"seed {trial.settings.seed}"])
