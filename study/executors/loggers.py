"""Optional loggers beside the store: TensorBoard and MLflow, each through its own library.

They repeat what the store holds, for those who watch their runs there. A logger that fails is dropped with a
note, and the run goes on. The next one is a class with the three methods of `Logger` and a line in `_KINDS`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from analysis.schema import EPOCHS, TRIALS
from study.errors import StudyError
from study.settings.trial import Trial

_NOT_NUMBERS = {"epoch", "attempt"}
_SPLITS = ("_train", "_val", "_test")


class Logger(Protocol):
    """What a run tells a logger of each trial."""

    def started(self, trial: Trial, name: str) -> None:
        """A trial begins; `name` says in a few words what it is."""

    def measured(self, trial_id: str, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers after evaluation `step`, by column."""

    def finished(self, trial_id: str, outcome: str) -> None:
        """A trial ended."""

    def close(self) -> None:
        """The run ended."""


class TensorBoard:
    """A folder of event files for each trial: ``DIR/<study>/<trial id>``."""

    def __init__(self, target: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter
        self._folder = Path(target)
        self._open: dict[str, Any] = {}

    def started(self, trial: Trial, name: str) -> None:
        """See `Logger`. A trial that lost its process goes on where it was."""
        if trial.trial_id in self._open:
            return
        writer = self._writer(str(self._folder / trial.study / trial.trial_id))
        writer.add_text("trial", name)
        self._open[trial.trial_id] = writer

    def measured(self, trial_id: str, step: int, numbers: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in numbers.items():
            self._open[trial_id].add_scalar(name, value, step)
        self._open[trial_id].flush()

    def finished(self, trial_id: str, outcome: str) -> None:
        """See `Logger`."""
        writer = self._open.pop(trial_id)
        writer.add_text("outcome", outcome)
        writer.close()

    def close(self) -> None:
        """See `Logger`."""
        while self._open:
            self._open.popitem()[1].close()


class MLflow:
    """A run of MLflow for each trial, in the experiment named after the study."""

    def __init__(self, target: str) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of its own tables otherwise
        self._client = MlflowClient(tracking_uri=target)
        self._runs: dict[str, str] = {}

    def started(self, trial: Trial, name: str) -> None:
        """See `Logger`. A trial that lost its process goes on in its run."""
        if trial.trial_id in self._runs:
            return
        known = self._client.get_experiment_by_name(trial.study)
        experiment = known.experiment_id if known else self._client.create_experiment(trial.study)
        run = self._client.create_run(experiment, run_name=name, tags={"trial_id": trial.trial_id})
        self._runs[trial.trial_id] = run.info.run_id
        for path, value in _flat(trial.settings.to_dict()):
            self._client.log_param(run.info.run_id, path, value)

    def measured(self, trial_id: str, step: int, numbers: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in numbers.items():
            self._client.log_metric(self._runs[trial_id], name, value, step=step)

    def finished(self, trial_id: str, outcome: str) -> None:
        """See `Logger`."""
        run = self._runs.pop(trial_id)
        self._client.set_tag(run, "outcome", outcome)
        self._client.set_terminated(run, "FINISHED" if outcome in ("ok", "pruned") else "FAILED")

    def close(self) -> None:
        """See `Logger`."""
        while self._runs:
            self._client.set_terminated(self._runs.popitem()[1], "KILLED")


_KINDS: dict[str, tuple[type[Any], str]] = {
    "tensorboard": (TensorBoard, "tensorboard:DIR"),
    "mlflow": (MLflow, "mlflow:URI"),
}


def open_logger(spec: str) -> Logger:
    """Open a logger.

    Args:
        spec: ``tensorboard:DIR`` or ``mlflow:URI``.

    Returns:
        The logger.

    Raises:
        StudyError: There is no such kind, its target is missing or refused, or its library is not installed.
    """
    kind, _, target = spec.partition(":")
    if kind not in _KINDS or not target:
        forms = " or ".join(form for _, form in _KINDS.values())
        raise StudyError(f"--log-to must be {forms}, got {spec!r}")
    try:
        logger: Logger = _KINDS[kind][0](target)
    except ImportError as error:
        raise StudyError(
            f"--log-to {kind} needs the package {kind}, which is not installed ({error}): "
            f"pip install 'revstudy[{kind}]'"
        ) from None
    except Exception as error:  # each library has errors of its own
        raise StudyError(
            f"{_KINDS[kind][0].__name__} cannot log to {target!r}: {type(error).__name__}: {error}"
        ) from None
    return logger


def numbers_in(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an evaluation or a trial, by column; what Ray adds of its own is left out."""
    columns = {c.name for table in (EPOCHS, TRIALS) for c in table.columns} - _NOT_NUMBERS
    return {
        name: float(value)
        for name, value in result.items()
        if (name in columns or name.endswith(_SPLITS))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted path."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
