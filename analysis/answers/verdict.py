"""The answer in two sentences: what reversing saves and costs at equal settings, what comes near the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.answers.findings import SAME_MACHINE, reverse_against_store
from analysis.answers.recommend import Configuration
from analysis.cohort import Cohort
from analysis.pairs import difference, ratio
from analysis.stats import Estimate, Row, group_by
from analysis.strategies import doing
from analysis.wording import (
    bytes_text,
    count_text,
    factor_text,
    percent_text,
    points_text,
    precision_label,
    ratio_text,
    width_text,
)

NEAR = 0.01
"""How far below the best validation accuracy a configuration may be, one point, to count as near it."""

WORTH = 0.95
"""Peak memory against storing above which reversing is said to save nothing."""


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Trials that reverse against those that store, of equal settings and seed.

    Attributes:
        memory: ratio of peak memory, measured alike.
        time: ratio of step time on one machine.
        accuracy: difference of test accuracy, of validation accuracy where no trial has the former.
        metric: which of the two.

    """

    memory: Estimate | None
    time: Estimate | None
    accuracy: Estimate | None
    metric: str


@dataclass(frozen=True, kw_only=True)
class Near:
    """What it takes to come near the best on one data set.

    Attributes:
        data: the data set.
        best: the best mean validation accuracy of any configuration.
        needs: per strategy the configuration of the smallest peak that comes within `NEAR` of `best` with
            gradients off by no more than `analysis.answers.recommend.GRADIENT_ERROR_LIMIT`; the smallest
            first.
        short: strategies that were tried, and none of whose configurations does.

    """

    data: str
    best: float
    needs: tuple[Configuration, ...]
    short: tuple[str, ...]


def twins(rows: Iterable[Row]) -> Twins:
    """Compares reversing with storing over the trials that ended ok."""
    ok = Cohort.of(rows).ended_ok()
    # Nothing is chosen by this difference: it compares twins, whatever their accuracy.
    column = "accuracy_test" if ok.finite("accuracy_test").any() else "accuracy_val"
    return Twins(
        memory=ratio(reverse_against_store(ok, same=("memory_source", "device")), "memory_peak_bytes"),
        time=ratio(
            reverse_against_store(ok.where(ok.finite("step_time_s")), same=SAME_MACHINE),
            "step_time_s",
        ),
        accuracy=difference(reverse_against_store(ok), column),
        metric="test" if column == "accuracy_test" else "validation",
    )


def nearest(points: Iterable[Configuration]) -> list[Near]:
    """Return what comes near the best, per data set and memory source.

    Args:
        points: configurations, as of `analysis.answers.recommend.configurations`.

    """
    scored = [(c.accuracy.mean, c) for c in points]
    groups = group_by(scored, lambda s: (s[1].rows[0]["data"] or "", s[1].rows[0]["memory_source"] or ""))
    found = []
    for (data, _), group in sorted(groups.items()):
        best = max(score for score, _ in group)
        needs, short = [], []
        tried = group_by(group, lambda s: s[1].rows[0]["strategy"] or "unknown")
        for strategy, configurations in sorted(tried.items()):
            near = [(c.peak_bytes, -s, c) for s, c in configurations if s >= best - NEAR and not c.unfaithful]
            if near:
                needs.append(min(near, key=lambda item: item[:2])[2])
            else:
                short.append(strategy)
        needs.sort(key=lambda c: c.peak_bytes)
        found.append(Near(data=data, best=best, needs=tuple(needs), short=tuple(short)))
    return found


def verdict(rows: Sequence[Row]) -> tuple[str, str]:
    """What to do, in a few words, and why: the effects of reversing with intervals and n.

    Returns:
        Two empty texts where no two trials differ in reversing alone.

    """
    found = twins(rows)
    memory, accuracy = found.memory, found.accuracy
    if memory is None:
        return "", ""
    if memory.mean > WORTH:
        word = "Store."
    elif accuracy is None or accuracy.low is None or accuracy.high is None or accuracy.low < -NEAR:
        known_worse = accuracy is not None and accuracy.high is not None and accuracy.high < 0
        word = "Store where accuracy counts." if known_worse else "Reverse where memory is short, with care."
    else:
        word = "Reverse where memory is short."
    text = f"At equal settings and seed, reversing takes {ratio_text(memory)} the peak memory of storing"
    if found.time:
        text += f" and {ratio_text(found.time)} its step time"
    if accuracy:
        text += f", and changes {found.metric} accuracy by {points_text(accuracy)}"
        if accuracy.low is None or accuracy.low < -NEAR:
            text += "; a loss of a point or more is not ruled out"
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
    text = f"To come within one point of the best validation accuracy on {near.data}, "
    text += f"{percent_text(near.best)}, {'; '.join(parts)}."
    if near.short:
        words = " or ".join(map(doing, near.short))
        text += f" No configuration came as near by {words} with faithful gradients."
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
    return (
        f"{row['model']}, depth {row['depth']}, width {width_text(row)}, {precision_label(row)}: "
        f"{percent_text(one.accuracy.mean)}, {count_text(len(one.rows), 'seed')}"
    )
