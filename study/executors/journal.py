"""The Optuna study of a search as a file: ``<store>/study=<name>/optuna.journal``, for `optuna-dashboard`.

The store's rows are what a search goes on from; this file repeats them in Optuna's own form. A trial is added
once it has ended, with values, constraints and curve, so that no killed run leaves one that runs for ever,
and a file that is lost is written anew by the next run.

    optuna-dashboard results/study=tune/optuna.journal
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from study.store.files import local_folder

NAME = "optuna.journal"
OUTCOMES = "outcomes"
CONSTRAINTS = "constraints"
LOCK_S = 5
"""A lock that is this old was left by a killed process: an entry takes milliseconds."""


class Journal:
    """Adds the ended trials of one search to the file; on object storage, or a full disk, it does nothing.

    Args:
        store, study: Where the file is.
        step: Which of the study's steps the search is.
        space: What it varies; a search over another space, or for other objectives, is another Optuna study.
        objectives: ``max`` or ``min`` by column.
    """

    def __init__(
        self, store: str | Path, study: str, step: int, *, space: Any, objectives: Mapping[str, str]
    ) -> None:
        self._study: optuna.Study | None = None
        folder = local_folder(store)
        if folder is None:
            return
        meaning = json.dumps([space, list(objectives.items())], sort_keys=True)
        name = f"{study}-{step}-{hashlib.sha256(meaning.encode()).hexdigest()[:6]}"
        path = folder / f"study={study}" / NAME
        with contextlib.suppress(OSError):
            try:
                self._study = _open(path, name, objectives)
            except (ValueError, KeyError):  # no file of Optuna's, or of a version that this one cannot read
                path.rename(path.with_name(f".{NAME}.{uuid.uuid4().hex[:8]}"))
                self._study = _open(path, name, objectives)

    def find(self, outcomes: Mapping[str, str]) -> FrozenTrial | None:
        """The file's trial of these seeds, trial ids with their outcomes, or None."""
        if self._study is None:
            return None
        trials = self._study.get_trials(deepcopy=False)
        return next((t for t in trials if t.user_attrs.get(OUTCOMES) == dict(outcomes)), None)

    def add(self, trial: FrozenTrial, outcomes: Mapping[str, str]) -> None:
        """Add an ended trial, with the trial ids of its seeds and how they ended."""
        if self._study is None:
            return
        trial.user_attrs = {OUTCOMES: dict(outcomes)}
        if trial.constraints:
            # As Optuna kept them before version 5: optuna-dashboard still looks for the list.
            trial.system_attrs = {**trial.system_attrs, CONSTRAINTS: list(trial.constraints.values())}
        try:
            self._study.add_trial(trial)
        except OSError:
            self._study = None  # the disk is full, or gone: what becomes of the run is decided by its rows


def attributes_of(trial: FrozenTrial) -> dict[str, Any]:
    """What a sampler noted of a trial, such as its generation, without what `Journal.add` put beside it."""
    return {name: value for name, value in trial.system_attrs.items() if not name.startswith(CONSTRAINTS)}


def _open(path: Path, name: str, objectives: Mapping[str, str]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_S)
    _mend(path, lock)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path), lock_obj=lock)),
        study_name=name,
        directions=["maximize" if way == "max" else "minimize" for way in objectives.values()],
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if study.metric_names != list(objectives):
            study.set_metric_names(list(objectives))
    return study


def _mend(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Cut off an entry that a killed process left half written; the next would make the file unreadable."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
    finally:
        lock.release()
