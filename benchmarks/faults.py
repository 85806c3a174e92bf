"""Does a study survive whatever dies? Kills it at random moments, starts it again, and compares the tables.

A study of 24 trials runs once undisturbed, and then on an empty store over and over: each time a driver, an
actor that trains, another worker of Ray or the raylet is ended with SIGKILL at a random moment. A run that
ends is started again with the same command; where the study is done before all kills were made, it begins
on another empty store. In the end the trials of every store are compared with the undisturbed ones, every
column but those of time, machine and attempt to the last bit:

- lost: trials of the plan that have no row, or one that did not end as it did undisturbed;
- duplicated: rows of the view beyond one for each trial, and trials that ended well in two files;
- differing: trials, epochs or blocks with another number.

    python benchmarks/faults.py --kills 30

Exit code 0 means 0 of each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from analysis.store.store import open_store
from study.provenance import provenance
from study.store.reader import read_rows

STUDY = {
    "name": "faults",
    "data": {"name": "digits", "train_examples": 256, "test_examples": 100},
    "model": {"name": "revnet38", "width": 0.25, "depth": 14},
    "train": {"epochs": 6, "batch_size": 64},
    "space": {
        # The last learning rate diverges: endings that are not ok have to survive, too.
        "train.learning_rate": {"grid": [0.02, 0.04, 1e30]},
        "model.depth": {"grid": [14, 26]},
        "memory.strategy": {"grid": ["store", "reverse"]},
    },
    "seeds": [0, 1],
}
TRIALS = 24
VICTIMS = ("driver", "actor", "worker", "raylet")
UNEQUAL = {
    "attempt",
    "concurrent_trials",
    "epoch_s",
    "examples_per_s",
    "finished_at",
    "started_at",
    "step_time_s",
    "train_s",
    "wall_s",
}
"""Columns of time, and of what a trial was disturbed by."""

Row = dict[str, Any]


def main() -> int:
    arguments = parse()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="revstudy-faults-") as scratch:
        folder = Path(scratch)
        study = folder / "study.yaml"
        study.write_text(yaml.safe_dump(STUDY))
        began = time.monotonic()
        calm = folder / "undisturbed"
        say("the undisturbed run")
        code, _ = Run(study, calm).wait()
        assert code == 1, f"the undisturbed run ended with {code}"  # 1: the trials that diverge
        lasts = time.monotonic() - began
        say(f"it took {lasts:.0f} s")
        kills, codes, stores = torment(study, folder, arguments, lasts, rng)
        tally = Counter[str]()
        for store in stores:
            tally.update(compare(calm, store))
        report = {
            "benchmark": "faults",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "kills": sum(kills.values()),
            "killed": dict(kills),
            "studies": len(stores),
            "trials": len(read_rows(calm)),
            "undisturbed_s": round(lasts, 1),
            "total_s": round(time.monotonic() - began, 1),
            "exit_codes": {str(code): count for code, count in sorted(codes.items())},
            "retried": sum(row["attempt"] > 0 for store in stores for row in read_rows(store).values()),
            **{name: tally[name] for name in ("lost", "duplicated", "differing")},
            **provenance("cpu"),
            "ray_version": version("ray"),
        }
    if arguments.results:
        with arguments.results.open("a") as file:
            file.write(json.dumps(report) + "\n")
    if arguments.json:
        print(json.dumps(report))
    else:
        print(
            f"{report['kills']} kills ({', '.join(f'{n} {v}' for v, n in kills.items())}) over "
            f"{len(stores)} studies of {report['trials']} trials: {report['lost']} lost, "
            f"{report['duplicated']} duplicated, {report['differing']} differing"
        )
    return int(any(report[name] for name in ("lost", "duplicated", "differing")))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="what is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the victims and moments")
    parser.add_argument("--minutes", type=float, default=60.0, help="make no kill after that")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).parent / "results" / "faults.jsonl",
        help="file that the report is appended to",
    )
    return parser.parse_args()


def final(store: Path) -> int:
    """Trials that ended as no later run would try to better."""
    rows = read_rows(store).values() if store.exists() else ()
    return sum(row["outcome"] in ("ok", "diverged") for row in rows)


def torment(
    study: Path, folder: Path, arguments: argparse.Namespace, lasts: float, rng: random.Random
) -> tuple[Counter[str], Counter[int], list[Path]]:
    """Make the kills; the victims, the exit codes of the runs that were let end, and the stores."""
    kills, codes, stores = Counter[str](), Counter[int](), []
    ends_at = time.monotonic() + 60 * arguments.minutes
    while sum(kills.values()) < arguments.kills and time.monotonic() < ends_at:
        store = folder / f"store-{len(stores)}"
        stores.append(store)
        while final(store) < TRIALS:
            run, before = Run(study, store), sum(kills.values())
            while sum(kills.values()) < arguments.kills and time.monotonic() < ends_at:
                if run.ends_within(rng.uniform(1.0, lasts / 2)):
                    break
                victim = rng.choice(arguments.victims)
                if run.kill(victim, rng):
                    kills[victim] += 1
                    say(f"kill {sum(kills.values())}: {victim}, {final(store)} trials done")
                if victim == "driver":
                    break
            code, killed = run.wait()
            # 1: trials diverged, or Ray ended the driver, which was about to join it; 4: Ray died too often.
            assert killed or code in (1, 4), f"a run ended with {code}: {run.said()}"
            assert "Traceback" not in run.said(), run.said()
            if not killed:
                codes[code] += 1
            disturbed = sum(kills.values()) > before
            assert disturbed or final(store) == TRIALS, f"a run in peace left trials: {run.said()}"
    return kills, codes, stores


class Run:
    """One `revstudy run` in a session of its own."""

    def __init__(self, study: Path, store: Path) -> None:
        self._log = store.with_suffix(".log")
        self._killed = False
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "study.cli", "run", str(study), "--store", str(store)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ends_within(self, seconds: float) -> bool:
        """Whether the run ends by itself in the next `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Send SIGKILL to a process of that kind; False if there is none at this moment."""
        found = [pid for pid, name in self._family() if kind_of(name) == victim]
        if victim == "driver":
            found, self._killed = [self._process.pid], True
        for pid in rng.sample(found, min(1, len(found))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def wait(self) -> tuple[int, bool]:
        """Wait for the end; the exit code, and whether the run itself was killed."""
        code = self._process.wait(900)
        return code, self._killed

    def said(self) -> str:
        """The end of what the run printed."""
        return self._log.read_text()[-6000:]

    def _family(self) -> list[tuple[int, str]]:
        """Processes of the run's session with their command lines. The run's own is not among them."""
        family = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(entry.name)
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if os.getsid(pid) == self._process.pid != pid and state != "Z":
                    name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    family.append((pid, name))
        return family


def kind_of(command: str) -> str | None:
    """Which kind of victim a process of Ray is, by its command line."""
    if "/raylet/raylet " in command:
        return "raylet"
    if command.startswith(("ray::TrialActor", "ray::ResourceTrainable")):
        return "actor"
    return "worker" if command.startswith("ray::") else None


def compare(calm: Path, store: Path) -> Counter[str]:
    """The tally of one store against the undisturbed one."""
    tally = Counter[str]()
    expected, found = open_store(calm), open_store(store)
    wanted, rows = by_key(expected.rows("trials")), found.rows("trials")
    tally["duplicated"] += len(rows) - len({row["trial_id"] for row in rows})
    finals = Counter(
        file.name.partition("-a")[0]
        for file in store.glob("study=*/trials/*.parquet")
        if open_outcome(file) in ("ok", "diverged")
    )
    tally["duplicated"] += sum(count - 1 for count in finals.values())
    got = by_key(rows)
    for key, row in wanted.items():
        if key not in got or got[key]["outcome"] != row["outcome"]:
            tally["lost"] += 1
            say(f"lost: {store.name} {row['trial_id']}: {ending(row)}, and here {ending(got.get(key))}")
        elif unequal := differences(row, got[key]):
            tally["differing"] += 1
            say(f"differing: {store.name} {row['trial_id']}: {', '.join(unequal)}")
    for table in ("epochs", "blocks"):
        left, right = by_key(expected.rows(table)), by_key(found.rows(table))
        tally["differing"] += len(left.keys() ^ right.keys())
        tally["differing"] += sum(bool(differences(left[k], right[k])) for k in left.keys() & right.keys())
        tally["duplicated"] += len(found.rows(table)) - len(right)
    return tally


def by_key(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
    return {tuple(row.get(name) for name in ("trial_id", "epoch", "block", "name")): row for row in rows}


def differences(one: Row, other: Row) -> list[str]:
    """The columns in which two rows differ, but for those of time."""
    return [name for name in one if name not in UNEQUAL and repr(one[name]) != repr(other[name])]


def ending(row: Row | None) -> str:
    """How a trial ended, in a few words."""
    if row is None:
        return "no row"
    return f"{row['outcome']} {row['error_class'] or ''} {(row['error_message'] or '')[:300]}".strip()


def open_outcome(file: Path) -> str:
    import pyarrow.parquet as pq

    return str(pq.read_table(file, columns=["outcome"])["outcome"][0])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
