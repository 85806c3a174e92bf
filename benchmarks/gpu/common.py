"""What the programs of the GPU suite share: arguments, lines of results that survive an interruption, trials.

Every program takes ``--out DIR``, does what is not done there yet, and ends within ``--minutes``. What it was
doing when the time was up is done by the next call on the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from study.identity import resolve, trial_id  # noqa: E402
from study.plan.cost import trial_cost  # noqa: E402
from study.settings.trial import Trial, TrialSettings  # noqa: E402
from study.store.reader import History  # noqa: E402
from study.store.rows import TrialResult  # noqa: E402
from study.store.writer import write_result  # noqa: E402
from study.train.trial import train_trial  # noqa: E402

MINUTES = 9.0
"""A call ends well before ten minutes."""


def parser(documentation: str) -> argparse.ArgumentParser:
    """The arguments that all programs have."""
    made = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--minutes", type=float, default=MINUTES)
    made.add_argument("--tiny", action="store_true", help="the smallest sizes: does everything run?")
    return made


class Deadline:
    """Seconds since the Unix epoch at which a call ends."""

    def __init__(self, minutes: float) -> None:
        self.at = time.time() + 60 * minutes

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.time() >= self.at


class Lines:
    """Results as JSON lines, each written at once, so that an interrupted call loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> list[dict[str, Any]]:
        """Every whole line."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # the call was cut off in the middle of it
        return found

    def add(self, values: dict[str, Any]) -> None:
        """Append one result, on a line of its own even after a torn one."""
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            torn = False
            if size:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps(values, allow_nan=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def device_name(device: str) -> str:
    """The name that rows give this device."""
    from study.provenance import provenance

    return str(provenance(device)["device"])


def planned(study: str, settings: Iterable[TrialSettings]) -> list[Trial]:
    """Trials with their identity and predicted memory, as a plan of `revstudy` would have them."""
    trials = []
    for point in settings:
        whole = resolve(point)
        trials.append(
            Trial(
                trial_id=trial_id(whole),
                study=study,
                settings=whole,
                memory_predicted_bytes=trial_cost(whole).memory_bytes,
            )
        )
    return trials


def run_trials(
    trials: Sequence[Trial],
    store: Path,
    *,
    device: str,
    deadline: Deadline,
    told: Callable[[dict[str, Any]], None],
) -> int:
    """Train what the store has no row of, in turn, until the time is up; returns how many are left."""
    done, following = set(History(store).done()), History(store).attempts()
    for trial in trials:
        if trial.trial_id in done:
            continue
        if deadline.passed:
            break
        result: TrialResult = train_trial(
            trial, attempt=following.get(trial.trial_id, 0), device=device, deadline=deadline.at
        )
        if result.trial["outcome"] == "timeout":
            break
        write_result(store, result)
        told(result.trial)
        if result.trial["outcome"] != "failed":
            done.add(trial.trial_id)
    return sum(trial.trial_id not in done for trial in trials)


def ended(left: int, what: str) -> int:
    """Say what is left; exit code 0 when all is done, 3 when another call should go on."""
    print(f"{left} {what} left; call again to go on." if left else f"All {what} are done.")
    return 3 if left else 0
