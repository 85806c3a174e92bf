"""Does a study survive whatever happens to it? Random faults, and the table compared with an undisturbed
run's.

A study of 24 trials runs once undisturbed. Then it runs on an empty store while faults are drawn from the
seed: processes are killed, terminated or stopped for seconds (driver, trial, other worker, raylet); the disk
is full for a while, or requests to the S3 server fail; rows, checkpoints and leases are torn, cut to
nothing, garbled or copied to other names; the clock of all processes steps by 90 s, and the file server's
too; a second run of the same study starts; `compact` merges beside the run. A run that ends is started again
with the same command. Once the study is done its table is compared with the undisturbed one, and the next
round begins on another empty store, until all faults were made:

- lost: trials of the plan that have no row, or one that did not end as it did undisturbed;
- duplicated: trials that were trained to an end in two attempts, and rows of a view beyond one for each key;
- different: trials, epochs or blocks with another number, but for those of time, machine and attempt;
- broken: runs that hung, ended in a traceback or with an exit code that is not documented, and rounds that
  never ended.

The store of a round that failed is kept, where it is a folder.

    python benchmarks/chaos.py --faults 100 --seed 1
    python benchmarks/chaos.py --faults 40 --seed 1 --place s3

Each round draws from its own seed, which is printed with a failure; `--round` repeats one round alone. The
moments at which faults happen depend on the machine, so a repeated round draws the same faults but may not
fail again. Exit code 0 means 0 of each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_compare import compare
from benchmarks.chaos_processes import SIGNALS, VICTIMS, Run
from benchmarks.chaos_stores import LEASE, Bucket, Folder, damage
from study.errors import StoreError
from study.provenance import provenance
from study.store.reader import History

STUDY = {
    "name": "chaos",
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
PROCESSES = tuple(f"{victim} {how}" for victim in VICTIMS for how in SIGNALS)
FILES = (
    *("torn row", "truncated row", "garbled row", "duplicated row"),
    *("torn checkpoint", "garbled checkpoint", "truncated checkpoint"),
    *("torn lease", "garbled lease", "truncated lease"),
)
OTHERS = ("clock step", "second run", "merge")
WEIGHTS = {
    "second run": 2,
    "merge": 3,
    "clock step": 3,
    "disk full": 3,
    "requests failing": 5,
    "server gone": 3,
}
STEP_S = 90.0
"""How far a clock steps: more than the minute after which a lease is stale."""
PAUSE = (0.01, 0.12)
"""Time between two faults, as a part of the time that the undisturbed run took."""
HANG_S = 900.0
A_ROUND = 20
"""Faults of a round at most: a storm that never ends would strike the beginning of a study alone."""
MOST_RUNS = 60
"""Runs of one round; undisturbed, two are enough."""


@dataclass
class Tally:
    """What happened so far."""

    faults: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    rounds: int = 0
    retried: int = 0


@dataclass
class Round:
    """One store, from empty to done."""

    study: Path
    scratch: Path
    place: Folder | Bucket
    rng: random.Random
    seed: str
    tally: Tally
    faults_left: int
    ends_at: float
    lasts_s: float
    runs: int = 0
    beside: list[Run] = field(default_factory=list)

    def play(self) -> None:
        """Run the study again and again, under faults while there are any left, until it is done."""
        while self.done() < TRIALS:
            if self.runs >= MOST_RUNS:
                self.broken(f"not done after {self.runs} runs: {self.done()} of {TRIALS} trials")
                return
            run = self.start(["run", str(self.study), "--store", self.place.address], "run")
            while self.faults_left and time.monotonic() < self.ends_at:
                if run.ends_within(self.lasts_s * self.rng.uniform(*PAUSE)):
                    break
                self.fault(run)
            self.end(run)
            for other in self.beside:
                self.end(other)
            self.beside.clear()

    def start(self, arguments: list[str], name: str) -> Run:
        """Start a command."""
        self.runs += name == "run"
        return Run(arguments, self.scratch, f"{name}-{time.monotonic_ns()}")

    def end(self, run: Run) -> None:
        """Wait for a command and judge how it ended."""
        code = run.wait(HANG_S)
        said = run.said()
        self.tally.codes[f"{run.name.partition('-')[0]} {code}"] += 1
        if code is None:
            self.broken(f"{run.name} hung: {said[-1500:]}")
        elif "Traceback" in said:
            self.broken(f"{run.name} ended in a traceback: {said[-3000:]}")
        elif code not in (0, 1, 3, 4, 130) and not (run.disturbed and code < 0):
            self.broken(f"{run.name} ended with exit code {code}: {said[-1500:]}")

    def fault(self, run: Run) -> None:
        """Draw a fault and make it, if that is possible at this moment."""
        kinds = (*PROCESSES, *FILES, *OTHERS, *self.place.kinds)
        (kind,) = self.rng.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])
        with contextlib.suppress(OSError):  # the file is gone, the disk is full
            if self.make(kind, run):
                self.faults_left -= 1
                self.tally.faults[kind] += 1
                number = self.tally.faults.total()
                say(f"fault {number}: {kind} (round {self.seed}, {self.done()} trials done)")

    def make(self, kind: str, run: Run) -> bool:
        """Make one fault; False if there is nothing that it could happen to."""
        if kind in PROCESSES:
            victim, how = kind.split()
            return run.signal(victim, how, self.rng)
        if kind in FILES:
            return damage(self.place, kind, self.rng)
        if kind in self.place.kinds:
            return self.place.trouble(kind, self.rng)
        if kind == "clock step":
            step = self.rng.choice((-STEP_S, STEP_S))
            if (
                isinstance(self.place, Folder)
                and self.rng.random() < 0.5
                and (names := self.place.names(LEASE))
            ):
                self.place.age(self.rng.choice(names), step)
                return True
            clock = self.scratch / "clock"
            clock.write_text(str(step + float(clock.read_text() if clock.exists() else 0)))
            return True
        if kind == "second run" and len(self.beside) < 2:
            self.beside.append(self.start(["run", str(self.study), "--store", self.place.address], "second"))
            return True
        if kind == "merge":
            self.beside.append(self.start(["compact", "--store", self.place.address], "merge"))
            return True
        return False

    def done(self) -> int:
        """Trials that ended as no later run would try to better."""
        for _ in range(5):
            with contextlib.suppress(StoreError, OSError):
                return len(History(self.place.address).done())
            time.sleep(1)
        return 0

    def broken(self, why: str) -> None:
        """Note what a run must not do."""
        self.tally.found["broken"] += 1
        self.fail(why)

    def fail(self, why: str) -> None:
        """Note a failure under the round's seed."""
        self.tally.failures.append(f"round {self.seed}: {why[:600]}")
        say(f"FAILURE in round {self.seed}: {why}")


def main() -> int:
    """Make the faults and print the tally."""
    arguments = parse()
    began, tally = time.monotonic(), Tally()
    with (
        tempfile.TemporaryDirectory(prefix="revstudy-chaos-") as scratch,
        places(arguments, Path(scratch)) as make,
    ):
        folder = Path(scratch)
        study = folder / "study.yaml"
        study.write_text(yaml.safe_dump(STUDY))
        calm = folder / "undisturbed"
        say("the undisturbed run")
        first = Run(["run", str(study), "--store", str(calm)], folder, "undisturbed")
        code = first.wait(HANG_S)
        assert code == 1, f"the undisturbed run ended with {code}: {first.said()}"  # 1: some diverge
        lasts = time.monotonic() - began
        say(f"it took {lasts:.0f} s")
        ends_at = time.monotonic() + 60 * arguments.minutes
        numbers = iter([arguments.round] if arguments.round is not None else range(10**6))
        while (made := tally.faults.total()) < arguments.faults and time.monotonic() < ends_at:
            number = next(numbers, None)
            if number is None:
                break
            seed = f"{arguments.seed}/{number}"
            where = folder / f"round-{number}"
            where.mkdir()
            place = make(where)
            try:
                left = min(A_ROUND, arguments.faults - made)
                failed = len(tally.failures)
                round = Round(study, where, place, random.Random(seed), seed, tally, left, ends_at, lasts)
                round.play()
                tally.rounds += 1
                tally.found.update(compare(str(calm), place.address, round.fail))
                rows = History(place.address).rows().values()
                tally.retried += sum(row["attempt"] > 0 for row in rows)
                if len(tally.failures) > failed and isinstance(place, Folder):
                    keep(Path(place.address), seed)
            finally:
                place.close()
    report = {
        "benchmark": "chaos",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "place": arguments.place,
        "seed": arguments.seed,
        "faults": tally.faults.total(),
        "made": dict(sorted(tally.faults.items())),
        "rounds": tally.rounds,
        "trials": TRIALS,
        "undisturbed_s": round_to_tenth(lasts),
        "total_s": round_to_tenth(time.monotonic() - began),
        "exit_codes": dict(sorted(tally.codes.items())),
        "retried": tally.retried,
        **{name: tally.found[name] for name in ("lost", "duplicated", "different", "broken")},
        "failures": tally.failures,
        **provenance("cpu"),
        "ray_version": version("ray"),
    }
    if arguments.results:
        with arguments.results.open("a") as file:
            file.write(json.dumps(report) + "\n")
    if arguments.json:
        print(json.dumps(report))
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in tally.faults.most_common())
        print(
            f"{report['faults']} faults ({kinds}) over {tally.rounds} studies of {TRIALS} trials: "
            f"{report['lost']} lost, {report['duplicated']} duplicated, {report['different']} different, "
            f"{report['broken']} broken"
        )
        for failure in tally.failures:
            print(failure)
    return int(any(report[name] for name in ("lost", "duplicated", "different", "broken")))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments")
    parser.add_argument("--round", type=int, help="play this round of the seed alone")
    parser.add_argument("--place", choices=("folder", "s3"), default="folder", help="where the store is")
    parser.add_argument("--minutes", type=float, default=120.0, help="make no fault after that")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).parent / "results" / "chaos.jsonl",
        help="file that the report is appended to",
    )
    return parser.parse_args()


@contextlib.contextmanager
def places(arguments: argparse.Namespace, scratch: Path) -> Iterator[type[Folder] | object]:
    """What makes the place of a round's store."""
    if arguments.place == "folder":
        yield Folder
        return
    from tests.s3_server import s3_server

    errors = scratch / "errors"
    errors.write_text("0.0")
    with s3_server(errors=errors, seed=arguments.seed) as uri:
        yield lambda where: Bucket(uri, errors, where.name)


def keep(store: Path, seed: str) -> None:
    """Copy the store of a round that failed to where it outlives the program."""
    kept = Path(tempfile.mkdtemp(prefix=f"revstudy-chaos-{seed.replace('/', '-')}-")) / "store"
    shutil.copytree(store, kept, symlinks=True)
    say(f"the store of round {seed} is kept: {kept}")


def round_to_tenth(value: float) -> float:
    """Seconds as they are reported."""
    return float(f"{value:.1f}")


def say(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
