"""The answer in two sentences: what reversing saves and costs at equal settings, what comes near the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.answers.findings import SAME_MACHINE, reverse_against_store
from analysis.answers.recommend import Configuration, comparable, eligible, seeded
from analysis.cohort import Cohort
from analysis.faithful import LIMIT_TEXT
from analysis.pairs import difference, ratio
from analysis.score import Score, main_score, score_of
from analysis.stats import Estimate, Row, group_by
from analysis.strategies import doing
from analysis.wording import (
    bytes_text,
    count_text,
    factor_text,
    precision_label,
    ratio_text,
    shape_text,
)

WORTH = 0.95
"""Peak memory against storing above which reversing is said to save nothing."""


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Trials that reverse against those that store, of equal settings and seed.

    Attributes:
        memory: ratio of peak memory, measured alike.
        time: ratio of step time on one machine.
        score: difference of the test score, of the validation score where no trial has the former.
        metric: what the trials are judged by.
        split: ``test`` or ``validation``.

    """

    memory: Estimate | None
    time: Estimate | None
    score: Estimate | None
    metric: Score
    split: str


@dataclass(frozen=True, kw_only=True)
class Near:
    """What it takes to come near the best on one data set.

    Attributes:
        data: the data set.
        best: the best mean validation score of those that may be recommended.
        metric: what they are judged by.
        needs: per strategy the configuration of the smallest peak among those whose score is as near to
            `best` as `Score.near` says and whose gradients are faithful (`analysis.faithful`); the smallest
            first. One of several seeds stands before those of one.
        short: strategies that were tried, and none of whose configurations does.

    """

    data: str
    best: float
    metric: Score
    needs: tuple[Configuration, ...]
    short: tuple[str, ...]


def twins(rows: Iterable[Row]) -> Twins:
    """Compares reversing with storing over the trials that ended ok."""
    ok = Cohort.of(rows).ended_ok()
    metric = main_score(ok)
    judged = ok.grouped(score_of).get(metric, ok[:0])
    # Nothing is chosen by this difference: it compares twins, whatever their score.
    column = metric.test if judged.finite(metric.test).any() else metric.val
    return Twins(
        memory=ratio(reverse_against_store(ok, same=("memory_source", "device")), "memory_peak_bytes"),
        time=ratio(
            reverse_against_store(ok.where(ok.finite("step_time_s")), same=SAME_MACHINE),
            "step_time_s",
        ),
        score=difference(reverse_against_store(judged), column),
        metric=metric,
        split="test" if column == metric.test else "validation",
    )


def nearest(points: Iterable[Configuration]) -> list[Near]:
    """Return what comes near the best, per data set and memory source.

    Args:
        points: configurations, as of `analysis.answers.recommend.configurations`.

    """
    found = []
    for data, group in comparable(points):
        sound = [c for c in group if c.fidelity in ("exact", "faithful")]
        headline = eligible(sound)
        if not headline:
            continue
        top = max(headline, key=lambda c: c.merit)
        needs, short = [], []
        tried = group_by(group, lambda c: c.rows[0]["strategy"] or "unknown")
        named = {c.ids for c in sound}
        for strategy, members in sorted(tried.items()):
            near = [c for c in members if c.ids in named and c.merit >= top.merit - c.metric.near]
            if near:
                needs.append(min(seeded(near), key=lambda c: (c.peak_bytes, -c.merit)))
            else:
                short.append(strategy)
        needs.sort(key=lambda c: c.peak_bytes)
        found.append(
            Near(data=data, best=top.score.mean, metric=top.metric, needs=tuple(needs), short=tuple(short))
        )
    return found


def verdict(rows: Sequence[Row]) -> tuple[str, str]:
    """What to do, in a few words, and why: the effects of reversing with intervals and n.

    Returns:
        Two empty texts where no two trials differ in reversing alone.

    """
    found = twins(rows)
    memory, score, metric = found.memory, found.score, found.metric
    if memory is None:
        return "", ""
    # Gains and losses as merits, so that one rule does for metrics of both directions.
    ends = None if score is None or score.low is None or score.high is None else (score.low, score.high)
    merits = sorted(map(metric.merit, ends)) if ends else None
    if memory.mean > WORTH:
        word = "Store."
    elif merits is None or merits[0] < -metric.near:
        known_worse = merits is not None and merits[1] < 0
        word = (
            f"Store where {metric.name} {'count' if metric.name.startswith('bits') else 'counts'}."
            if known_worse
            else "Reverse where memory is short, with care."
        )
    else:
        word = "Reverse where memory is short."
    text = f"At equal settings and seed, reversing takes {ratio_text(memory)} the peak memory of storing"
    if found.time:
        text += f" and {ratio_text(found.time)} its step time"
    if score:
        text += f", and changes {found.split} {metric.name} by {metric.difference_text(score)}"
        if merits is None or merits[0] < -metric.near:
            loss = "a loss" if metric.better == "max" else "a rise"
            text += f"; {loss} of {metric.near_words} or more is not ruled out"
    return word, text + "."


def near_text(near: Near) -> str:
    """What comes near the best, in a sentence; nothing where only unfaithful configurations do."""
    if not near.needs:
        return ""
    first, *others = near.needs
    parts = [f"{_doing(first.rows[0])} needs {bytes_text(first.peak_bytes)} of peak memory ({_what(first)})"]
    for other in others:
        part = f"{_doing(other.rows[0])} {bytes_text(other.peak_bytes)}"
        if first.peak_bytes > 0:
            part += f", {factor_text(other.peak_bytes / first.peak_bytes)} as much"
        parts.append(f"{part} ({_what(other)})")
    metric = near.metric
    text = f"To come within {metric.near_words} of the best validation {metric.name} on {near.data}, "
    text += f"{metric.figure(near.best)}, {'; '.join(parts)}."
    if near.short:
        words = " or ".join(map(doing, near.short))
        text += f" No configuration came as near by {words} with gradients within {LIMIT_TEXT}."
    if len(near.needs) + len(near.short) < 2:
        text += (
            " No other strategy was tried: a study with store and reverse in space.memory.strategy says "
            "what reversing saves."
        )
    return text


def _doing(row: Row) -> str:
    return doing(row["strategy"])


def _what(one: Configuration) -> str:
    row = one.rows[0]
    what = ", ".join(filter(None, (row["model"], shape_text(row), precision_label(row))))
    return f"{what}: {one.metric.figure(one.score.mean)}, {count_text(len(one.rows), 'seed')}"
