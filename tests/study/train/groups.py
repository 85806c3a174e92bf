"""Groups of workers without Ray: each rank is a process of this program, and rank 0 saves what it found.

    python -m tests.study.train.groups RANK SIZE FOLDER

`FOLDER` holds ``job.json`` (the trial, and after which epoch to stop) and maybe ``state.pt`` to go on from.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from study.settings.trial import Trial
from tests.study.trials import trial_from_dict


def train_group(folder: Path, trial: Trial, *, workers: int, stop_after: int | None = None) -> dict[str, Any]:
    """Train a trial in a group; rank 0's rows, and in the folder the state after the last epoch."""
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps({"trial": trial.to_dict(), "stop_after": stop_after}))
    (folder / "meet").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.study.train.groups"]
    processes = [
        subprocess.Popen([*command, str(rank), str(workers), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(workers)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * workers, "\n".join(said)
    return torch.load(folder / "result.pt", weights_only=True)


def main(rank: int, size: int, folder: Path) -> None:
    """Be one worker of a group."""
    import torch.distributed as dist

    from study.train.session import Distributed
    from study.train.trial import train_trial

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    job = json.loads((folder / "job.json").read_text())
    saved = folder / "state.pt"
    resume = torch.load(saved, weights_only=True) if saved.exists() else None
    dist.barrier()

    def save(state: dict[str, Any], epoch: int) -> None:
        if rank == 0:
            torch.save(state, saved)

    result = train_trial(
        trial_from_dict(job["trial"]),
        device="cpu",
        distributed=Distributed(rank=rank, world_size=size),
        save=save,
        resume=resume,
        on_epoch=lambda row: row["epoch"] == job["stop_after"],
    )
    if rank == 0:
        row = {name: value for name, value in result.trial.items() if "_at" not in name}
        torch.save({"trial": row, "epochs": result.epochs, "blocks": result.blocks}, folder / "result.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
