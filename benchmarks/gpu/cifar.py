"""Train the six CIFAR networks of the paper, several processes on one card, resumable.

    python benchmarks/gpu/cifar.py --out DIR --data parquet:shared/data/cifar10 --epochs 30 --processes 6

Uses the training loop of the studies (`study.train.trial`) without Ray: images stay on the device, and so
does their augmentation. Every finished trial is a row of ``DIR/store``; every other one leaves its state
after each epoch in ``DIR/state`` and goes on from there in the next call, which gives what an uninterrupted
training gives.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.common import ended, parser
from study.identity import resolve, trial_id
from study.settings.data import DataSettings
from study.settings.model import MemorySettings, ModelSettings
from study.settings.run import ProbeSettings
from study.settings.train import TrainSettings
from study.settings.trial import Trial, TrialSettings
from study.store.reader import History
from study.store.writer import write_result
from study.train.trial import train_trial

STUDY = "gpu-cifar"
MODELS = ("resnet32", "revnet38", "resnet110", "revnet110", "resnet164", "revnet164")


def trials(chosen: Any) -> list[Trial]:
    """Seeds outermost, so that an early end leaves whole comparisons."""
    found = []
    for seed in range(chosen.seeds):
        for model in chosen.models:
            for strategy in ("reverse", "store") if model in chosen.twins else (None,):
                settings = TrialSettings(
                    data=DataSettings(
                        name=chosen.data, train_examples=chosen.examples, test_examples=chosen.test_examples
                    ),
                    model=ModelSettings(name=model, depth=chosen.depth, width=chosen.width),
                    memory=MemorySettings(strategy=strategy),
                    train=TrainSettings(
                        epochs=chosen.epochs,
                        batch_size=chosen.batch,
                        learning_rate=chosen.learning_rate,
                        schedule=chosen.schedule,
                        warmup_epochs=chosen.warmup,
                    ),
                    probe=ProbeSettings(every=chosen.probe_every, examples=64),
                    seed=seed,
                )
                whole = resolve(settings)
                found.append(Trial(trial_id=trial_id(whole), study=STUDY, settings=whole))
    return found


def claim(folder: Path, name: str) -> bool:
    """Take a trial for this process; false if another one of this call has it."""
    try:
        (folder / f"{name}.claim").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def work(chosen: Any) -> None:
    """One process: train what no other process has taken, until the time is up."""
    torch.set_num_threads(1)
    state, store = chosen.out / "state", chosen.out / "store"
    done, following = History(store).done(), History(store).attempts()
    for trial in trials(chosen):
        if trial.trial_id in done or not claim(chosen.out / "claims", trial.trial_id):
            continue
        if time.time() >= chosen.until:
            return
        file = state / f"{trial.trial_id}.pt"

        def save(values: dict[str, Any], epoch: int, file: Path = file) -> None:
            part = file.with_suffix(".part")
            torch.save(values, part)
            part.replace(file)

        resume = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None
        result = train_trial(
            trial,
            attempt=following.get(trial.trial_id, 0),
            device=chosen.device,
            resume=resume,
            save=save,
            deadline=chosen.until,
        )
        row = result.trial
        row["concurrent_trials"] = chosen.processes
        print(
            f"{row['model']} {row['strategy']} seed {row['seed']}: {row['outcome']}, "
            f"epoch {row['epochs_done']}, validation {row['accuracy_val']}, test {row['accuracy_test']} "
            f"{row['error_message'] or ''}",
            flush=True,
        )
        if row["outcome"] != "timeout":
            write_result(store, result)
            file.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the processes and wait for them; exit code 1 if a trial failed, 3 if some are left."""
    made = parser(__doc__ or "")
    made.add_argument("--data", default="cifar10")
    made.add_argument("--models", nargs="+", default=list(MODELS))
    made.add_argument("--twins", nargs="*", default=["revnet38"], help="also trained with stored activations")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--epochs", type=int, default=160)
    made.add_argument("--batch", type=int, default=100)
    made.add_argument("--learning-rate", type=float, default=0.1)
    made.add_argument("--schedule", default="step", choices=("step", "cosine", "constant"))
    made.add_argument("--warmup", type=float, default=0.0, help="epochs")
    made.add_argument("--examples", type=int, help="training images; default: all but those for validation")
    made.add_argument("--test-examples", type=int)
    made.add_argument("--depth", type=int, help="instead of each network's own")
    made.add_argument("--width", type=float, default=1.0)
    made.add_argument("--probe-every", type=int, default=10)
    made.add_argument("--processes", type=int, default=6)
    made.add_argument("--until", type=float, help=argparse.SUPPRESS)
    chosen = made.parse_args(arguments)
    if chosen.until is not None:
        work(chosen)
        return 0
    for folder in ("state", "claims", "store"):
        (chosen.out / folder).mkdir(parents=True, exist_ok=True)
    for stale in (chosen.out / "claims").glob("*.claim"):
        stale.unlink()
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        *given,
        "--until",
        str(time.time() + 60 * chosen.minutes),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, env=environment) for _ in range(chosen.processes)]
    codes = [process.wait() for process in running]
    finished = set(History(chosen.out / "store").done())
    left = sum(trial.trial_id not in finished for trial in trials(chosen))
    return (1 if any(codes) else 0) or ended(left, "trials")


if __name__ == "__main__":
    sys.exit(main())
