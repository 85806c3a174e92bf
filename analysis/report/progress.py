"""How far a run is, as the page tells it: counts, rate, time left, and what is training now.

Who serves or watches a store says so; this package reads rows alone, and knows nothing of leases.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.store.store import Store
from analysis.wording import bytes_text, count_text, seconds_text

FEWEST = 8
"""Trials with a result before anything is recommended while a study runs, where it has more to come."""

SHARE = 0.25
"""Of those that the study has, this share must have ended before anything is recommended."""

MOST_SHOWN = 24
"""Running trials that the page lists."""

_WIDTH, _HEIGHT = 160.0, 34.0


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that is training.

    Attributes:
        what: Its settings in a few words, or its id.
        host: The machine.
        share: The part that is done, 0 to 1.
        memory_bytes: The peak of one of its steps; 0 while that is not known.
        curve: Pairs of a step and the training loss, as far as it is known; None where it is not finite.
    """

    what: str
    host: str
    share: float
    memory_bytes: int = 0
    curve: tuple[tuple[int, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the studies of a page are.

    Attributes:
        planned: Trials that they have; None where no run has said.
        done: Trials that ended, whichever way.
        failed: Of them, those that failed.
        retried: Of them, those that took more than one attempt.
        left: Trials that neither ended nor run; None where no run has said.
        rate_per_hour: Trials that end in an hour; None while nothing runs.
        time_left_s: At that rate.
        running: What trains now.
    """

    planned: int | None = None
    done: int = 0
    failed: int = 0
    retried: int = 0
    left: int | None = None
    rate_per_hour: float | None = None
    time_left_s: float | None = None
    running: tuple[RunningTrial, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether all that was planned has ended."""
        return self.left == 0 and not self.running

    def text(self) -> str:
        """The counts in one line; empty where there is nothing that a headline of rows does not tell."""
        if not self.running:
            return (
                f"Nothing runs now; {count_text(self.left, 'trial')} of {self.planned:,} left."
                if self.left and self.planned
                else ""
            )
        of = "" if self.planned is None else f" of {self.planned:,}"
        parts = [f"{self.done:,}{of} done", f"{len(self.running):,} running", f"{self.failed:,} failed"]
        parts.append(f"{self.retried:,} retried")
        if self.rate_per_hour:
            parts.append(f"{self.rate_per_hour:,.3g} trials an hour")
        if self.time_left_s is not None:
            parts.append(f"about {seconds_text(self.time_left_s)} left")
        return " · ".join(parts)


Ask = Callable[[Store], Progress]
"""Answers how far the studies of an open store are."""


def waiting(progress: Progress | None, judged: int) -> str:
    """Return why nothing is recommended yet while a study runs; empty once something may be.

    Args:
        progress: How far it is; None where nobody knows, so that nothing has to wait.
        judged: Trials that ended ok with a score and a measured peak of memory.

    """
    if progress is None or not progress.running:
        return ""
    wanted = max(FEWEST, math.ceil(SHARE * (progress.planned or 0)))
    if progress.planned is not None:
        wanted = min(wanted, progress.planned)
    if judged >= wanted:
        return ""
    return (
        f"The study runs, and {count_text(judged, 'trial')} with a result would be too few to recommend by. "
        f"Recommendations come from {wanted:,} on, or when the study ends."
    )


def table(progress: Progress | None) -> list[dict[str, Any]]:
    """The running trials as the page lists them, each with its curve as the points of a line."""
    if progress is None:
        return []
    return [
        {
            "what": one.what,
            "host": one.host,
            "percent": round(100 * one.share),
            "memory": bytes_text(one.memory_bytes) if one.memory_bytes else "–",
            **_line(one.curve),
        }
        for one in progress.running[:MOST_SHOWN]
    ]


def parsed_curve(text: str) -> tuple[tuple[int, float | None], ...]:
    """The pairs of a curve as JSON; none where the text is damaged."""
    try:
        points = json.loads(text) if text else []
        return tuple((int(step), None if loss is None else float(loss)) for step, loss in points)
    except (ValueError, TypeError):
        return ()


def _line(curve: Sequence[tuple[int, float | None]]) -> dict[str, Any]:
    known = [(step, loss) for step, loss in curve if loss is not None and math.isfinite(loss)]
    if not known:
        return {"points": "", "told": "no loss yet", "last": "–"}
    steps, losses = [step for step, _ in known], [loss for _, loss in known]
    low, high, first, end = min(losses), max(losses), min(steps), max(steps)
    points = " ".join(
        f"{2 + (_WIDTH - 4) * (step - first) / max(1, end - first):.1f},"
        f"{2 + (_HEIGHT - 4) * ((high - loss) / (high - low) if high > low else 0.5):.1f}"
        for step, loss in known
    )
    told = f"training loss from {losses[0]:.3g} at step {first:,} to {losses[-1]:.3g} at step {end:,}"
    return {"points": points, "told": told, "last": f"{losses[-1]:.3g} at step {end:,}"}
