"""What multi-objective pruning saves, and what it costs: searches with and without it, on Ray, over seeds.

A search looks for the highest validation accuracy at the least memory among RevNets on the digits. Each seed
of the sampler runs it twice on stores of its own: every trial to its end, and with pruning. The figures of a
pair are the share of the epochs that were trained, and the hypervolume of the front of finished trials as a
share of the unpruned one's. The reference point is no accuracy at the most memory of either search; memory
is on a scale of powers of two, as sizes of networks are.

    python benchmarks/pruning.py --seeds 10 --sampler random

With ``random`` both searches of a pair draw the same points, so that nothing but pruning differs. ``tpe``
looks at results and draws other points once something was pruned. Rows are added to
`benchmarks/results/pruning.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.pareto import pareto_mask
from benchmarks.results_file import FOLDER, circumstances
from study.cluster.session import ray_session
from study.run import run_study
from study.spec.study import Study
from study.store.reader import History

METHODS = ("asha", "median")
OBJECTIVES = {"accuracy_val": "max", "memory_peak_bytes": "min"}
SPACE = {
    "model.width": {"choice": [0.25, 0.5, 1.0]},
    "model.depth": {"choice": [14, 26]},
    "train.learning_rate": {"loguniform": [0.003, 1.0]},
    "train.batch_size": {"choice": [32, 64, 128]},
}


def study_of(sampler: str, seed: int, pruning: str | None, *, trials: int, epochs: int) -> Study:
    """Return the search, as a study file would have it."""
    search: dict[str, Any] = {
        "method": "optuna",
        "sampler": sampler,
        "sampler_seed": seed,
        "trials": trials,
        "objectives": OBJECTIVES,
        "space": SPACE,
    }
    if pruning is not None:
        search["pruning"] = {"method": pruning}
    return Study.model_validate(
        {
            "name": f"pruning-{pruning or 'none'}-{sampler}-{seed}",
            "data": {"name": "digits", "train_examples": 600},
            "model": {"name": "revnet38"},
            "train": {"epochs": epochs, "learning_rate": 0.1},
            "scaling": {"cpus_per_worker": 1},
            "search": search,
        }
    )


def search(study: Study, folder: Path) -> list[dict[str, Any]]:
    """Run a search on an empty store and return its trials' rows."""
    summary = run_study(study, str(folder))
    if summary.exit_code:
        raise RuntimeError(f"{study.name}: the run ended with exit code {summary.exit_code}")
    return list(History(str(folder)).rows().values())


def front(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return accuracy and memory in powers of two of the finished trials that no other one beats."""
    points = [
        (row["accuracy_val"], math.log2(row["memory_peak_bytes"])) for row in rows if row["outcome"] == "ok"
    ]
    mask = pareto_mask(points, list(OBJECTIVES.values()))
    return [point for point, best in zip(points, mask, strict=True) if best]


def hypervolume(points: list[tuple[float, float]], most: float) -> float:
    """Return the area of accuracy above 0 and memory below `most` that a front covers."""
    area, edge = 0.0, most
    for accuracy, memory in sorted(points, reverse=True):  # the most accurate, and so the largest, first
        area, edge = area + accuracy * max(0.0, edge - memory), min(edge, memory)
    return area


def pair(sampler: str, seed: int, method: str, *, trials: int, epochs: int) -> dict[str, Any]:
    """Run one search without and with pruning, and return the figures."""
    found = {}
    for pruning in (None, method):
        study = study_of(sampler, seed, pruning, trials=trials, epochs=epochs)
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            found[pruning] = search(study, Path(folder))
        print(
            f"  {study.name}: {len(found[pruning])} trials, {time.monotonic() - began:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    most = max(math.log2(row["memory_peak_bytes"]) for rows in found.values() for row in rows)
    whole, pruned = (hypervolume(front(rows), most + 1) for rows in found.values())
    spent = [sum(row["epochs_done"] for row in rows) for rows in found.values()]
    return {
        "sampler": sampler,
        "seed": seed,
        "method": method,
        "trials": trials,
        "epochs": epochs,
        "stopped": sum(row["outcome"] == "pruned" for row in found[method]),
        "epochs_share": spent[1] / spent[0],
        "hypervolume_share": pruned / whole,
    }


def main() -> int:
    """Run the pairs, add their rows, and print the mean of the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sampler", default="random", choices=("random", "tpe", "nsga2"))
    parser.add_argument("--method", default="median", choices=METHODS)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=FOLDER / "pruning.jsonl")
    args = parser.parse_args()
    rows = []
    for seed in range(args.seeds):
        with ray_session(num_cpus=1):
            row = pair(args.sampler, seed, args.method, trials=args.trials, epochs=args.epochs)
        rows.append(row)
        print(
            f"seed {seed}: {row['epochs_share']:.0%} of the epochs, "
            f"{row['hypervolume_share']:.1%} of the hypervolume, {row['stopped']} stopped",
            file=sys.stderr,
            flush=True,
        )
        with args.output.open("a") as file:
            file.write(json.dumps({"benchmark": "pruning", **row, **circumstances()}) + "\n")
    for name in ("epochs_share", "hypervolume_share"):
        values = [row[name] for row in rows]
        spread = f"{min(values):.1%} to {max(values):.1%}"
        print(f"{name}: mean {statistics.mean(values):.1%}, {spread}, n = {len(values)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
