"""Trains one trial of a store again, from the settings in its row, and sets the results side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from study.errors import StudyError, nearest
from study.identity import trial_id
from study.settings.trial import Trial, TrialSettings, settings_from_dict
from study.store.files import read_file
from study.store.reader import read_rows
from study.train.trial import train_trial

COMPARED = (
    *("outcome", "accuracy_val", "accuracy_test", "loss_train", "loss_val", "loss_test"),
    *("bits_per_byte_val", "bits_per_byte_test", "metrics_json", "parameters"),
    *("memory_peak_bytes", "memory_activation_bytes", "reconstruction_rel_error", "gradient_rel_error"),
    *("step_time_s", "device", "torch_version", "git_commit"),
)
RESULTS = COMPARED[:9]
"""Columns that come out bit for bit the same on the same machine, versions and threads."""


CIRCUMSTANCES = {
    "cpu_threads": "threads",
    "device": "device",
    "torch_version": "version of PyTorch",
    "python_version": "version of Python",
    "platform": "platform",
    "revstudy_version": "version of revstudy",
    "git_commit": "commit",
}
"""Columns that say with what a trial was trained, and their names for people."""


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """What the store has and what came out now, by column of `COMPARED`."""

    trial_id: str
    recorded: dict[str, Any]
    now: dict[str, Any]
    circumstances: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """Which recorded circumstances are other than they were, for results that differ."""
        if not self.circumstances:
            return "every circumstance that is recorded is as it was: the processor's kernels may be others"
        return f"other than when it was recorded: {'; '.join(self.circumstances)}"

    @property
    def same(self) -> bool:
        """Whether outcome, accuracies and losses are equal to the last bit."""
        return all(self.recorded[name] == self.now[name] for name in RESULTS)


def find_trial(store: str | Path, wanted: str) -> Trial:
    """Return the trial of a row, by its id or the start of it, with the settings that its row records.

    Raises:
        StudyError: No trial, or more than one, has such an id; or its settings give another id now, because
            the data or the training loop changed since.
        StoreError: The store cannot be read.
    """
    rows = read_rows(store)
    found = [rows[wanted]] if wanted in rows else [r for i, r in rows.items() if i.startswith(wanted)]
    if len(found) != 1:
        count = f"{len(found)} trials begin so; give more digits" if found else nearest(wanted, rows)
        raise StudyError(
            value=wanted, rule=f"must be the id of a trial in {str(store)!r}", remedy=count[:200]
        )
    row = found[0]
    settings = _settings(row, _code_of(store, row["study"]))
    again = trial_id(settings)
    if again != row["trial_id"]:
        raise StudyError(
            value=row["trial_id"],
            rule="the settings of this trial have another identity now: its data, or the training loop, "
            f"changed since (revstudy {row['revstudy_version']}, commit {row['git_commit']})",
            remedy="check out that commit, and point it to the same data",
        )
    return Trial(trial_id=again, study=row["study"], settings=settings, origin=row["origin"] or "grid")


def rerun(store: str | Path, trial: Trial) -> Rerun:
    """Train the trial in this process; nothing is written.

    Returns:
        The numbers of the row beside those of now.

    Raises:
        StudyError: The trial used more than one worker.
    """
    workers = trial.settings.scaling.workers
    if workers > 1 or trial.settings.scaling.parallel != "ddp":
        raise StudyError(
            "scaling.workers",
            value=workers,
            rule="a rerun trains in this process alone",
            remedy=f"run its study into an empty store: revstudy run {trial.study} --store DIR",
        )
    recorded = read_rows(store)[trial.trial_id]
    threads = torch.get_num_threads()
    # Sums in another order round differently: equal bits need as many threads as the row had.
    torch.set_num_threads(recorded["cpu_threads"] or threads)
    try:
        now = train_trial(trial).trial
    finally:
        torch.set_num_threads(threads)
    return Rerun(
        circumstances=tuple(
            f"{words} was {recorded[name]}, is {now[name]}"
            for name, words in CIRCUMSTANCES.items()
            if recorded[name] != now[name]
        ),
        trial_id=trial.trial_id,
        recorded={name: recorded[name] for name in COMPARED},
        now={name: now[name] for name in COMPARED},
    )


def _code_of(store: str | Path, study: str) -> str | None:
    """The folder of modules that a study brings along, as its store remembers it."""
    try:
        code = json.loads(read_file(store, f"study={study}/study.json") or b"null").get("code")
    except (AttributeError, ValueError):
        return None
    return code if isinstance(code, str) else None


def _settings(row: dict[str, Any], code: str | None) -> TrialSettings:
    """The settings behind a row: `study.identity.canonical` backwards."""
    try:
        config = json.loads(row["config_json"])
        for name in ("data", "model", "task"):
            config.get(name, {}).pop("source", None)
        data = config["data"]
        probe = config["probe"]
        probe = {"enabled": False} if probe is None else probe
        workers = config["workers"]
        least, most = workers if isinstance(workers, list) else (None, workers)
        sections = {name: config[name] for name in ("model", "precision", "memory", "train")}
        return settings_from_dict(
            {
                **sections,
                "data": {"name": row["data"], **data},
                "evaluate": config.get("evaluate", {}),
                "task": config.get("task", {}),
                "code": code,
                "scaling": {
                    "workers": most,
                    "min_workers": least,
                    "parallel": config.get("parallel", "ddp"),
                },
                "probe": {**probe, "cost": config.get("cost", True)},
                "seed": config["seed"],
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            value=row["trial_id"],
            rule=f"the settings of this trial are not as this version writes them ({error})",
            remedy=f"use revstudy {row['revstudy_version']}, commit {row['git_commit']}",
        ) from None
