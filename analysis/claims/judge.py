"""Judges every claim by the rows of a store, and tells the verdicts in words.

Gomez, Ren, Urtasun and Grosse, "The Reversible Residual Network" (NIPS 2017). A claim is a statement with its
place in the paper, a metric, what to expect, and a rule. The rule reads the store's views with SQL and gives
evidence, or says what rows are missing; the verdict is computed from that and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.claims import accuracy, cost, fidelity, pairs
from analysis.claims.claim import Claim, Evidence, Missing
from analysis.store.store import Store

HOLDS, FAILS, NOT_MEASURED = "holds", "does not hold", "not measured"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim and what the store's rows make of it.

    `verdict` is ``holds``, ``does not hold`` or ``not measured``; `low` and `high` are the ends of a 95 %
    bootstrap interval, None below three values.
    """

    number: int
    name: str
    statement: str
    source: str
    metric: str
    expected: str
    method: str
    study: str
    verdict: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    hardware: tuple[str, ...]
    trials: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def all_claims() -> tuple[Claim, ...]:
    """Every claim in order."""
    claims = (*fidelity.CLAIMS, *cost.CLAIMS, *pairs.CLAIMS, *accuracy.CLAIMS)
    return tuple(sorted(claims, key=lambda claim: claim.number))


def judge(store: Store) -> list[Verdict]:
    """The verdict on every claim, from the rows of an open store and from nothing else."""
    return store.remember("claims", lambda: [_verdict(claim, claim.rule(store)) for claim in all_claims()])


def _verdict(claim: Claim, found: Evidence | Missing) -> Verdict:
    if isinstance(found, Evidence):
        verdict, figure = (HOLDS if found.holds else FAILS), found.figure
        value, hardware, trials = found.value, found.hardware, found.trials
    else:
        verdict = NOT_MEASURED
        figure = f"needs {found.needs}" + (f"; {found.figure}" if found.figure else "")
        value, hardware, trials = None, (), ()
    return Verdict(
        **{name: getattr(claim, name) for name in _SHARED},
        verdict=verdict,
        figure=figure,
        value=value.mean if value else None,
        low=value.low if value else None,
        high=value.high if value else None,
        n=value.n if value else 0,
        hardware=hardware,
        trials=trials,
    )


_SHARED = ("number", "name", "statement", "source", "metric", "expected", "method", "study")


def counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many claims have each verdict."""
    found = dict.fromkeys((HOLDS, FAILS, NOT_MEASURED), 0)
    for verdict in verdicts:
        found[verdict.verdict] += 1
    return found


def claims_text(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as text, one claim after another, and a line of sums."""
    lines = []
    for v in verdicts:
        lines.append(f"{v.number:2d}  {v.verdict.upper():14s}{v.name}")
        lines.append(f"      {v.figure}")
        if v.n:
            lines.append(f"      expected: {v.expected}; {measured_text(v)}")
        else:
            lines.append(f"      expected: {v.expected}; revstudy run {v.study}")
    sums = ", ".join(f"{n} {verdict}" for verdict, n in counts(verdicts).items())
    return "\n".join([*lines, "", f"{len(verdicts)} claims: {sums}."])


def measured_text(v: Verdict) -> str:
    """The metric with its figure, interval, n and hardware."""
    if v.value is None:
        return f"n = {v.n}"
    interval = "" if v.low is None or v.high is None else f" (95 % interval {v.low:.3g} to {v.high:.3g})"
    where = f"; {', '.join(v.hardware)}" if v.hardware else ""
    return f"{v.metric}: {v.value:.3g}{interval}, n = {v.n}{where}"
