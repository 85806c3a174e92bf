"""Generated networks and uses, judged against their stored twins for as long as you like.

Run it with ``make soak``, or ``python -m benchmarks.soak --minutes 60 --seed 0``. A case is a network and
what is done with it (`tests.revmodels.generated`). It equals its stored twin in values, gradients, buffers,
generator states and kept outputs; or it is refused with an error of this package; or it is a finding: wrong
numbers in silence, or an error that is not this package's. A finding is printed as code that shows it again.
The exit code is 1 if there is one.

A row is added to ``benchmarks/results/soak.jsonl``: the tally, the circumstances, and each finding's code. An
interrupted run (Ctrl-C, SIGTERM) adds the row of what it has judged.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.results_file import FOLDER, circumstances
from tests.revmodels.generated.case import Case, cases
from tests.revmodels.generated.judge import (
    EQUAL,
    FINDINGS,
    RAW,
    REFUSED,
    SENSITIVE,
    TWIN_FAILS,
    Verdict,
    judge,
)
from tests.revmodels.generated.shrink import shrink, signature, text

ROUND = 400
"""Cases drawn from one seed; after each round the clock is read and compiled networks are forgotten."""
SHOWN = 5
"""Findings of one kind that are made plainer and written down; the rest are counted."""


class Tally:
    """What has been seen so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.twin_errors: Counter[str] = Counter()
        self.features: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.kinds: Counter[str] = Counter()
        self.largest_error = 0.0

    def add(self, case: Case, verdict: Verdict, round_seed: int) -> None:
        """Count one case; a finding is made plainer and printed."""
        self.outcomes[verdict.outcome] += 1
        self.features[case.dtype] += 1
        self.features["compiled"] += case.compiled
        kind = verdict.what.split(":")[0]
        if verdict.outcome == REFUSED:
            self.refusals[kind] += 1
        elif verdict.outcome == TWIN_FAILS:
            self.twin_errors[kind] += 1
        elif verdict.outcome == EQUAL and case.dtype == "float64":
            self.largest_error = max(self.largest_error, verdict.error)
        if not verdict.is_finding:
            return
        name = f"{verdict.outcome}: {signature(verdict)}"
        self.kinds[name] += 1
        if self.kinds[name] <= SHOWN:
            code = text(shrink(case, verdict))
            finding = {"outcome": verdict.outcome, "what": verdict.what, "seed": round_seed, "case": code}
            self.findings.append(finding)
            print(
                f"{verdict.outcome}: {verdict.what} ({verdict.error:.2g}), seed {round_seed}\n  {code}",
                flush=True,
            )

    def row(self) -> dict[str, Any]:
        """The tally as one row."""
        count = self.outcomes
        return {
            "cases": count.total(),
            "equal": count[EQUAL],
            "refused_by_name": count[REFUSED],
            "refusals_by_kind": dict(self.refusals.most_common()),
            "twin_fails": count[TWIN_FAILS],
            "twin_errors_by_kind": dict(self.twin_errors.most_common()),
            "sensitive": count[SENSITIVE],
            **{outcome.replace(" ", "_"): count[outcome] for outcome in FINDINGS},
            "largest_error_float64": self.largest_error,
            "cases_by_feature": dict(self.features.most_common()),
            "findings": self.findings,
        }


def one_round(tally: Tally, number: int, size: int = ROUND) -> None:
    """Draw and judge `size` cases."""

    @seed(number)
    @settings(
        max_examples=size,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def draw(case: Case) -> None:
        tally.add(case, _judged(case), number)

    draw()
    torch.compiler.reset()


def _judged(case: Case) -> Verdict:
    """The verdict; a judge that fails is a finding as well, and ends no hour of others."""
    try:
        return judge(case)
    except Exception as error:
        return Verdict(outcome=RAW, what=f"the judge fails: {type(error).__name__}: {str(error)[:90]}")


def main(arguments: list[str] | None = None) -> int:
    """Soak, print the tally, and add a row of it."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long, by the clock (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round has the next")
    parser.add_argument(
        "--to", type=Path, default=FOLDER / "soak.jsonl", help="file that the row is added to"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    tally, start, processor = Tally(), time.monotonic(), time.process_time()
    around, rounds = circumstances(), 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while time.monotonic() - start < options.minutes * 60:
            rounds += 1
            one_round(tally, options.seed + rounds - 1)
            counts = ", ".join(f"{name} {n}" for name, n in tally.outcomes.most_common())
            print(f"{(time.monotonic() - start) / 60:.1f} min: {counts}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    row = {"seeds": [options.seed, options.seed + rounds - 1], "cases_a_seed": ROUND, **tally.row()}
    row["minutes"] = (time.monotonic() - start) / 60
    row["processor_minutes"] = (time.process_time() - processor) / 60
    with options.to.open("a") as file:
        file.write(json.dumps(row | around) + "\n")
    print(json.dumps({k: v for k, v in row.items() if k != "findings"}, indent=2))
    return int(any(tally.outcomes[outcome] for outcome in FINDINGS))


if __name__ == "__main__":
    sys.exit(main())
