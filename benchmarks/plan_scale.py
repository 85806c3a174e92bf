"""`revstudy plan` of a study that is done, on a store of 100,000 trials.

The study's grid has as many trials as the store has rows, all of them final; the rows lie in one merged file,
as `revstudy compact` leaves them. Measured is the wall time of the command in a fresh process, start to end,
and the processor time it took (which other programs on the machine lengthen less); medians of `--repeats`.
The rows' numbers are made up (`benchmarks.sweep_store`), their identities are those of the study's trials.

    python -m benchmarks.plan_scale --store /tmp/plan --out benchmarks/results/plan_scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from analysis.schema import TRIALS
from analysis.store.manifest import Entry, write_manifest
from analysis.store.storage import open_storage
from benchmarks.sweep_store import points, trial
from study.identity import canonical_json
from study.plan.expand import make_plan
from study.spec.load import parse_study

LIMIT_S = 5.0
STUDY: dict[str, Any] = {
    "name": "sweep",
    "space": {
        "model.depth": {"grid": [14, 26, 38, 50, 62]},
        "model.width": {"grid": [0.5, 1.0]},
        "memory.strategy": {"grid": ["store", "reverse"]},
        "train.learning_rate": {"grid": [round(0.01 * i, 2) for i in range(1, 26)]},
    },
}


def write(store: Path, count: int) -> Path:
    """Writes the store and the study's file next to it; returns the file."""
    combinations = 5 * 2 * 2 * 25
    content = {**STUDY, "seeds": list(range(count // combinations))}
    file = store.parent / f"{store.name}-study.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    planned = make_plan(parse_study(content)).trials
    rows = []
    for number, (found, point) in enumerate(zip(planned, points(), strict=False)):
        row = trial(number, point, epochs=10)
        rows.append({**row, "trial_id": found.trial_id, "config_json": canonical_json(found.settings)})
    folder, name = store / "study=sweep" / "trials", "compact-" + "0" * 16 + ".parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=TRIALS.arrow), folder / name, compression="zstd")
    write_manifest(open_storage(store), str(folder.parent), {"trials": Entry(file=name, rows=len(rows))})
    return file


def measure(study: Path, store: Path) -> tuple[float, float, dict[str, Any]]:
    """Wall time and processor time of the command, and what it said."""
    begun, used = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "study.cli", "plan", str(study), "--store", str(store), "--json"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    took, now = time.perf_counter() - begun, os.times()
    cpu = now.children_user - used.children_user + now.children_system - used.children_system
    return took, cpu, json.loads(said)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    study = write(arguments.store, arguments.trials)
    walls, cpus = [], []
    for _ in range(arguments.repeats):
        wall, cpu, said = measure(study, arguments.store)
        assert (said["to_run"], said["already_done"]) == (0, arguments.trials), said
        walls.append(wall)
        cpus.append(cpu)
    result = {
        "trials": arguments.trials,
        "repeats": arguments.repeats,
        "wall_s": statistics.median(walls),
        "processor_s": statistics.median(cpus),
        "limit_s": LIMIT_S,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(int(result["wall_s"] > LIMIT_S))


if __name__ == "__main__":
    main()
