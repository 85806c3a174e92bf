"""Does `examples/slurm/revstudy.sbatch` bring a study through a time limit? On a real Slurm on loopback.

    python -m tests.slurm.check

A study that takes longer than its allocation is sent to Slurm. The job is requeued at its time limit, at
least once. It must end with every row, each of them what an undisturbed run gives. Exit code 0 means that it
did.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from study.store.reader import read_rows
from tests.slurm.local import asked, missing, slurm

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "slurm" / "revstudy.sbatch"
RESULTS = ("outcome", "epochs_done", "loss_train", "loss_val", "accuracy_val", "accuracy_test")
STUDY = {
    "name": "requeued",
    "data": {"name": "digits"},
    "model": {"name": "revnet38", "width": 0.25, "depth": 26},
    "train": {"epochs": 12, "batch_size": 32, "learning_rate": 0.05},
}


def results(store: Path) -> dict[str, dict[str, object]]:
    """Return the numbers of every trial that do not depend on the moment."""
    return {trial: {name: row[name] for name in RESULTS} for trial, row in read_rows(str(store)).items()}


def through_slurm(folder: Path, study: Path, minutes: int) -> tuple[Path, int, str]:
    """Send the study to a Slurm of our own and wait for its end.

    Returns:
        tuple[Path, int, str] The store, how often the job was requeued, and its last state.
    """
    store, log = folder / "results", folder / "job.log"
    with slurm(folder / "slurm") as environment:
        scripts = Path(sys.executable).parent
        environment |= {
            "REVSTUDY": str(scripts / "revstudy"),
            "RAY": str(scripts / "ray"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        limits = ["--time", "2", "--signal", "B:TERM@30", "--output", str(log), "--chdir", str(folder)]
        command = ["sbatch", "--parsable", "--cpus-per-task", str(os.cpu_count()), *limits, str(SCRIPT)]
        job = asked(environment, *command, str(study), str(store)).strip()
        end, state = time.monotonic() + 60 * minutes, ""
        while time.monotonic() < end:
            shown = asked(environment, "scontrol", "show", "job", job)
            fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
            if fields.get("JobState") != state:
                state = fields.get("JobState", "")
                print(f"{time.strftime('%H:%M:%S')} job {job}: {state}, restarts {fields.get('Restarts')}")
            if state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
                break
            time.sleep(1.0)
        else:
            asked(environment, "scancel", job)
    print(log.read_text()[-3000:])
    return store, int(fields.get("Restarts", 0)), state


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--minutes", type=int, default=20, help="give up after these")
    arguments = parser.parse_args()
    if absent := missing():
        print(f"Slurm is not here ({', '.join(absent)}): install slurmctld slurmd slurm-client munge")
        return 2
    with tempfile.TemporaryDirectory(prefix="revstudy-slurm-") as scratch:
        folder = Path(scratch)
        study = folder / "requeued.yaml"
        study.write_text(yaml.safe_dump({**STUDY, "seeds": list(range(arguments.trials))}))
        store, restarts, state = through_slurm(folder, study, arguments.minutes)
        rows = results(store)
        calm = folder / "calm"
        command = [sys.executable, "-m", "study.cli", "run", str(study), "--store", str(calm)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        same = rows == results(calm)
    print(
        f"{state}; requeued {restarts} times; {len(rows)} of {arguments.trials} rows; as undisturbed: {same}"
    )
    return 0 if state == "COMPLETED" and restarts and same and len(rows) == arguments.trials else 1


if __name__ == "__main__":
    raise SystemExit(main())
