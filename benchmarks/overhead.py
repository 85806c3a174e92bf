"""What does a trial cost beyond its training? Tiny trials, through `revstudy` and as plain Tune functions.

Both train the same trials of one epoch with the same training loop, on one CPU of a Ray that is up already,
in turns. The cost of a trial is the time of all of them, from the call to its return, less the time that
their training loops took, divided by their number. So it holds everything that is not training: starting
processes and importing torch, handing out trials, claims, predicting memory, writing rows; start and end of
Tune as well.

    python benchmarks/overhead.py --trials 200 --plain 20

Plain functions start a process for every trial, the default of Ray Tune. Exit code 0 means that a trial
costs at most 0.25 s, and ten times less than a plain one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.cluster.session import ray_session
from study.provenance import provenance
from study.run import plan_run, run_study
from study.spec.load import parse_study
from study.spec.study import Study
from study.store.reader import read_rows

LIMIT_S, TIMES = 0.25, 10


def main() -> int:
    arguments = parse()
    ours, plain = [], []
    with (
        tempfile.TemporaryDirectory(prefix="revstudy-overhead-") as scratch,
        ray_session(num_cpus=1) as cluster,
    ):
        assert cluster.cpus == 1
        for turn in range(arguments.turns):
            count, few = arguments.trials // arguments.turns, arguments.plain // arguments.turns
            study = tiny(range(turn * count, (turn + 1) * count))
            ours.append(through_revstudy(study, Path(scratch) / f"store-{turn}"))
            plain.append(as_functions(tiny(range(turn * few, (turn + 1) * few)), scratch))
            print(f"turn {turn + 1}: {ours[-1]:.3f} s, plain {plain[-1]:.3f} s", file=sys.stderr, flush=True)
    cost, reference = sum(ours) / len(ours), sum(plain) / len(plain)
    report = {
        "benchmark": "overhead",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": arguments.trials,
        "plain_trials": arguments.plain,
        "cost_per_trial_s": cost,
        "plain_cost_per_trial_s": reference,
        "times_less": reference / cost,
        "turns_s": ours,
        "plain_turns_s": plain,
        **provenance("cpu"),
    }
    if arguments.results:
        with arguments.results.open("a") as file:
            file.write(json.dumps(report) + "\n")
    if arguments.json:
        print(json.dumps(report))
    else:
        print(f"a trial costs {cost:.3f} s, a plain one {reference:.2f} s: {reference / cost:.0f} times less")
    return int(cost > LIMIT_S or reference < TIMES * cost)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--plain", type=int, default=20, help="of them as plain functions, seconds each")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).parent / "results" / "overhead.jsonl",
        help="file that the report is appended to",
    )
    return parser.parse_args()


def tiny(seeds: range) -> Study:
    return parse_study(
        {
            "name": "overhead",
            "data": {"name": "synthetic:1x8x8x4", "train_examples": 64, "test_examples": 32},
            "model": {"name": "revnet38", "width": 0.25, "depth": 14},
            "train": {"epochs": 1, "batch_size": 32},
            "seeds": list(seeds),
        }
    )


def through_revstudy(study: Study, store: Path) -> float:
    began = time.perf_counter()
    summary = run_study(study, store)
    spent = time.perf_counter() - began
    assert summary.outcomes == {"ok": len(study.seeds)}, summary
    return (spent - sum(row["wall_s"] for row in read_rows(store).values())) / len(study.seeds)


def as_functions(study: Study, scratch: str) -> float:
    from ray import tune

    trials = plan_run(study, Path(scratch) / "none").trials
    tuner = tune.Tuner(
        tune.with_resources(train_one, {"cpu": 1}),
        param_space={"trial": tune.grid_search(list(trials))},
        run_config=tune.RunConfig(name=f"plain-{time.time_ns()}", storage_path=scratch, verbose=0),
    )
    began = time.perf_counter()
    results: Any = tuner.fit()
    spent = time.perf_counter() - began
    assert len(results) == len(trials)
    assert not results.errors, results.errors
    return (spent - sum(result.metrics["wall_s"] for result in results)) / len(trials)


def train_one(config: dict[str, Any]) -> dict[str, Any]:
    import torch

    from study.train.trial import train_trial

    torch.set_num_threads(1)
    row = train_trial(config["trial"], device="cpu").trial
    return {"wall_s": row["wall_s"], "accuracy_val": row["accuracy_val"]}


if __name__ == "__main__":
    sys.exit(main())
