"""A store of 100,000 trials and 10,000,000 epoch rows: written, merged while it is read, planned, asked.

Each trial has a file of its row and one of its curve. The first `SYNCED` are written, and timed, as finished
trials are, by `study.store.writer.write_result`; the others without syncing. The numbers are made up
(`benchmarks.sweep_store`), the identities are those of the study's trials. Then, in this order:

* plan of the study, all of it done, before the merge: `revstudy plan` as a fresh process;
* `revstudy compact`, in a process of its own, while this one opens the store again and again and counts:
  every count must be all trials, each once;
* plan after the merge;
* the group-by of `make demo`, as a user gives it (`revstudy query`, a fresh process) and within one process
  (open the store, answer; medians of `--repeats`).

    python -m benchmarks.store_scale --store /tmp/scale

Exit code 0 means that `plan` took at most 5 s, the group-by at most 0.3 s, and no reader saw a row twice or
not at all. What an earlier call has written is not written again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from analysis.schema import TABLES
from analysis.store.store import open_store
from benchmarks.plan_scale import STUDY, measure
from benchmarks.results_file import FOLDER, circumstances
from benchmarks.sweep_store import Row, epoch_rows, points, trial
from study.identity import canonical_json
from study.plan.expand import make_plan
from study.settings.trial import Trial
from study.spec.load import parse_study
from study.store.rows import TrialResult
from study.store.writer import write_result

PLAN_LIMIT_S, QUERY_LIMIT_S = 5.0, 0.3
SYNCED, CURVES = 3_000, 500
GROUP_BY = "select strategy, depth, min(memory_activation_bytes) from trials group by all order by all"
COUNT = "select count(*), count(distinct trial_id) from trials"


def main() -> int:
    arguments = parse()
    store: Path = arguments.store
    study = store.parent / f"{store.name}-study.yaml"
    found: dict[str, Any] = {"trials": arguments.trials, "epoch_rows": arguments.trials * arguments.epochs}
    there, found["write_one_s"] = write(study, arguments)
    if arguments.write or there < arguments.trials:
        return 0
    found["plan_before_s"] = planned(study, store, arguments.trials, 1)
    say(f"plan before the merge: {found['plan_before_s']:.2f} s")
    found |= merged(store, arguments.trials)
    say(f"merged in {found['compact_s']:.0f} s, {found['reads']} readings meanwhile")
    found["plan_s"] = planned(study, store, arguments.trials, arguments.repeats)
    found["group_by_s"] = asked(store, arguments.repeats)
    found["query_command_s"] = commanded(store, arguments.repeats)
    found |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
    found |= circumstances()
    print(json.dumps(found))
    if arguments.results:
        with arguments.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
    good = (
        found["plan_s"] <= PLAN_LIMIT_S and found["group_by_s"] <= QUERY_LIMIT_S and not found["wrong_reads"]
    )
    return int(not good)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="a folder for the store; 2 GB are needed")
    parser.add_argument("--trials", type=int, default=100_000, help="a multiple of 500")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--write", type=int, metavar="N", help="only write N more trials, if any are missing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--results", type=Path, default=FOLDER / "store_scale.jsonl", help="file the figures are appended to"
    )
    return parser.parse_args()


def write(study: Path, arguments: argparse.Namespace) -> tuple[int, float]:
    """Write the study's file and what the store lacks of its trials; how many it has, and seconds for one."""
    content = {**STUDY, "seeds": list(range(arguments.trials // 500))}
    log = study.with_suffix(".json")
    there, spent = json.loads(log.read_text()) if log.exists() else (0, 0.0)
    last = min(arguments.trials, there + (arguments.write or arguments.trials))
    if there < last:
        study.parent.mkdir(parents=True, exist_ok=True)
        study.write_text(yaml.safe_dump(content))
        trials = make_plan(parse_study(content)).trials
        recorded = min(last, max(there, SYNCED))
        for row in rows_of(trials, arguments.epochs, there, recorded):
            result = TrialResult(trial=row, epochs=epoch_rows(row))
            began = time.perf_counter()
            write_result(arguments.store, result)
            spent += time.perf_counter() - began
        copies(arguments.store, rows_of(trials, arguments.epochs, recorded, last))
        log.write_text(json.dumps([last, spent]))
        say(f"{last} trials written")
    return last, spent / min(last, SYNCED)


def rows_of(trials: Sequence[Trial], epochs: int, first: int, last: int) -> Iterator[Row]:
    """The rows of some of the trials, whose numbers are made up."""
    numbered = zip(range(last), trials, points(), strict=False)
    for number, found, point in itertools.islice(numbered, first, None):
        made = trial(number, point, epochs)
        yield made | {"trial_id": found.trial_id, "config_json": canonical_json(found.settings)}


def copies(store: Path, rows: Iterator[Row]) -> None:
    """Write the same files as the recorder, not synced, and each of `CURVES` curves again and again."""
    curves: list[tuple[bytes, bytes]] = []
    folder = store / "study=sweep"
    while batch := list(itertools.islice(rows, CURVES)):
        _copy(folder, batch, curves)


def _copy(folder: Path, batch: list[Row], curves: list[tuple[bytes, bytes]]) -> None:
    trials = pa.Table.from_pylist(batch, schema=TABLES["trials"].arrow)
    for number, row in enumerate(batch):
        name = f"{row['trial_id']}-a0.parquet"
        if len(curves) < CURVES:
            # Neither compressed nor checked by a sum, so that one name can be put in the place of another.
            table = pa.Table.from_pylist(epoch_rows(row), schema=TABLES["epochs"].arrow)
            buffer = pa.BufferOutputStream()
            pq.write_table(table, buffer, compression="none", use_dictionary=False)
            curves.append((row["trial_id"].encode(), buffer.getvalue().to_pybytes()))
        placeholder, curve = curves[number % len(curves)]
        (folder / "epochs" / name).write_bytes(curve.replace(placeholder, row["trial_id"].encode()))
        one = trials.slice(number, 1)
        pq.write_table(one, folder / "trials" / name, compression="snappy", use_dictionary=False)


def planned(study: Path, store: Path, trials: int, repeats: int) -> float:
    """The median time of `revstudy plan` on the study, all of whose trials are done."""
    times = []
    for _ in range(repeats):
        wall, _, said = measure(study, store)
        assert (said["to_run"], said["already_done"]) == (0, trials), said
        times.append(wall)
    return statistics.median(times)


def merged(store: Path, trials: int) -> dict[str, Any]:
    """Merge the store in another process, and read it here until that has ended, and once more."""
    before = {name: len(list((store / "study=sweep").glob(f"{name}/*.parquet"))) for name in TABLES}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "study.cli", "compact", "--store", str(store)], stdout=subprocess.DEVNULL
    )
    reads, wrong, ended = 0, [], False
    while not ended:
        ended = process.poll() is not None
        took = time.perf_counter() - began
        (row,) = open_store(store).sql(COUNT).to_pylist()
        counts = tuple(row.values())
        reads += 1
        if counts != (trials, trials):
            wrong.append(counts)
    assert process.returncode == 0
    return {"files_before": before, "compact_s": took, "reads": reads, "wrong_reads": wrong}


def asked(store: Path, repeats: int) -> float:
    """The median time from opening the store to the answer of the group-by, in this process."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        rows = open_store(store).sql(GROUP_BY).num_rows
        times.append(time.perf_counter() - began)
        assert rows
    return statistics.median(times)


def commanded(store: Path, repeats: int) -> float:
    """The median time of the group-by as a command."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        command = [sys.executable, "-m", "study.cli", "query", GROUP_BY, "--store", str(store), "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
