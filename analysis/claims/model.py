"""The testable claims of the RevNet paper, each judged from the rows of a store.

Gomez, Ren, Urtasun and Grosse, "The Reversible Residual Network" (NIPS 2017). A claim is a statement with its
place in the paper, a metric, what to expect, and a rule. The rule reads the store's views with SQL and gives
evidence, or says what rows are missing; the verdict is computed from that and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.stats import Estimate, estimate
from analysis.store.store import Store

HOLDS, FAILS, NOT_MEASURED = "holds", "does not hold", "not measured"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the rows say of a claim.

    Attributes:
        holds: whether they meet the claim's expectation.
        figure: the measured figure in words, with what it was measured on.
        value: the figure as a number, in the unit of the claim's metric, with its interval and n.
        trials: ids of the trials behind it.
        hardware: names of the devices they ran on.

    """

    holds: bool
    figure: str
    value: Estimate | None
    trials: tuple[str, ...]
    hardware: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a claim has no verdict: which rows it takes. `figure` may tell what smaller-scale rows show."""

    needs: str
    figure: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper.

    Attributes:
        number: its place in the list.
        name: a few words.
        statement: what is claimed.
        source: section, figure or table of the paper, or who else claims it.
        metric: what is measured, with its unit.
        expected: what a true claim gives.
        method: how the rows are turned into the figure, and the limit of the verdict.
        study: the built-in study whose rows fill it, as `revstudy run` takes it.
        rule: gives the evidence.

    """

    number: int
    name: str
    statement: str
    source: str
    metric: str
    expected: str
    method: str
    study: str
    rule: Callable[[Store], Evidence | Missing]


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
    from analysis.claims.accuracy import CLAIMS as accuracy
    from analysis.claims.cost import CLAIMS as cost
    from analysis.claims.fidelity import CLAIMS as fidelity
    from analysis.claims.pairs import CLAIMS as pairs

    return tuple(sorted((*fidelity, *cost, *pairs, *accuracy), key=lambda claim: claim.number))


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


def select(store: Store, query: str) -> list[Row]:
    """The rows of one SELECT over the views."""
    return store.sql(query).to_pylist()


def evidence(holds: bool, figure: str, values: Iterable[float], rows: Sequence[Row]) -> Evidence:
    """Evidence from rows with ``trial_id`` and ``device``, and of pairs ``twin_id``."""
    ids = {row[key] for row in rows for key in ("trial_id", "twin_id") if row.get(key)}
    return Evidence(
        holds=holds,
        figure=figure,
        value=estimate(values),
        trials=tuple(sorted(ids)),
        hardware=tuple(sorted({row["device"] for row in rows if row.get("device")})),
    )


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
