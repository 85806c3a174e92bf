"""What a trial is judged by: the metric of its task, with its columns, its direction and its words.

Sentences and figures ask here, so that a language model is never told its accuracy. A task of one's own is
judged by its loss. The next metric goes here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis.stats import Estimate, Row, finite
from analysis.wording import percent_text, points_text


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric.

    Attributes:
        stem: its columns are ``<stem>_train``, ``<stem>_val`` and ``<stem>_test``.
        name: what it is called.
        better: ``max`` or ``min``.
        scale: factor between the column and what people read.
        unit: of what people read; empty where the name says it.
        near: a difference that hardly matters, in the column's unit.
        near_words: that difference in words.
    """

    stem: str
    name: str
    better: Literal["max", "min"]
    scale: float
    unit: str
    near: float
    near_words: str

    @property
    def val(self) -> str:
        """The validation column."""
        return f"{self.stem}_val"

    @property
    def test(self) -> str:
        """The test column."""
        return f"{self.stem}_test"

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.better == "max" else "lower is better"

    @property
    def title(self) -> str:
        """The name, to begin a line with."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def axis(self) -> str:
        """The title of an axis of validation values."""
        return f"validation {self.name}" + (f" / {self.unit}" if self.unit else "")

    @property
    def hover(self) -> str:
        """The hover template of such a value."""
        value = "<b>%{y:.2f} %</b>" if self.unit == "%" else "<b>%{y:.4f}</b>"
        return f"{value} validation {self.name}"

    def merit(self, value: float) -> float:
        """A number that is larger where the value is better."""
        return value if self.better == "max" else -value

    def text(self, value: float | None) -> str:
        """A value as people read it: 98.1 %, 2.3145 bits per byte."""
        if self is ACCURACY or value is None:
            return percent_text(value)
        return f"{value:.4f} {self.name}" if self is BITS_PER_BYTE else f"{value:.4f}"

    def figure(self, value: float | None) -> str:
        """A value where the metric is named beside it: 98.1 %, 2.3145."""
        return percent_text(value) if self is ACCURACY or value is None else f"{value:.4f}"

    def interval_text(self, value: Estimate) -> str | None:
        """The ends of an interval, None without one."""
        if value.low is None or value.high is None:
            return None
        if self is ACCURACY:
            return f"{100 * value.low:.1f} to {100 * value.high:.1f} %"
        return f"{value.low:.4f} to {value.high:.4f}"

    def amount(self, value: float) -> str:
        """A distance between two values: 0.43 points, 0.0123 bits per byte."""
        return f"{100 * value:.2f} points" if self is ACCURACY else f"{value:.4f}{self._unit}"

    def difference_text(self, value: Estimate) -> str:
        """A difference with its interval and n."""
        if self is ACCURACY:
            return points_text(value)
        mean = _signed(value.mean)
        if value.low is None or value.high is None:
            return f"{mean} (n = {value.n}, too few for an interval)"
        return f"{mean} (95 % interval {_signed(value.low)} to {_signed(value.high)}, n = {value.n})"

    @property
    def _unit(self) -> str:
        return f" {self.name}" if self is BITS_PER_BYTE else f" {self.unit}" if self.unit else ""


def _signed(value: float) -> str:
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text


ACCURACY = Score(
    stem="accuracy", name="accuracy", better="max", scale=100, unit="%", near=0.01, near_words="one point"
)
BITS_PER_BYTE = Score(
    stem="bits_per_byte", name="bits per byte", better="min", scale=1, unit="", near=0.01,
    near_words="0.01 bits per byte",
)  # fmt: skip
LOSS = Score(stem="loss", name="loss", better="min", scale=1, unit="nats", near=0.01, near_words="0.01 nats")


def score_of(row: Row) -> Score:
    """The metric of a trial's task."""
    task = row.get("task")
    if task == "language" or finite(row.get("bits_per_byte_val")):
        return BITS_PER_BYTE
    own = task not in (None, "classification") and row.get("accuracy_val") is None
    return LOSS if own else ACCURACY


def main_score(rows: Iterable[Row]) -> Score:
    """The metric of most of the trials; accuracy without any."""
    counts = Counter(score_of(row) for row in rows)
    return max(counts, key=lambda score: (counts[score], score.stem), default=ACCURACY)


def scored(numbers: Mapping[str, Any]) -> str:
    """The validation score among the numbers of a trial, as people read it; empty where there is none."""
    for score in (BITS_PER_BYTE, ACCURACY):
        if finite(numbers.get(score.val)):
            return score.text(numbers[score.val])
    return f"loss {numbers[LOSS.val]:.4g}" if finite(numbers.get(LOSS.val)) else ""
