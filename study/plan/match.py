"""The value of one setting at which a trial is predicted to have the size that the study asks for.

A prediction grows with the setting that is solved for, and is made on fake tensors, about a second each. So
the values are bracketed, the next one is guessed between the ends of the bracket as if the logarithm of the
prediction were linear in the logarithm of the value, and networks that are equal are predicted once. What is
found are the two neighbors that enclose the size asked for, and of them the nearer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from study.code import is_own
from study.errors import StudyError
from study.identity import strategy_of
from study.settings.run import ProbeSettings
from study.settings.train import EvaluateSettings, TrainSettings
from study.settings.trial import TrialSettings
from study.spec.match import Match

WIDTHS = 1000
"""Widths are multiples of one over this, which is finer than channels are."""
LEAP = 8
"""A guess outside of what is known is at most so many times more, or less."""
MOST = 60
"""Predictions for one point. A setting that sizes grow with takes about seven."""
FAR = 10**9
"""A number of an axis that no network reaches."""

Complete = Callable[[TrialSettings], TrialSettings]
"""Resolves the settings of a candidate, and derives from them what else follows from its size."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The admissible values of a setting, numbered from 1 and ascending.

    Attributes:
        value: The value of a number.
        start: The number where the search begins.
        same: Tells which network a number stands for: numbers of equal networks have equal ones.
        tidy: Of the numbers that stand for the same network, the one to use.
    """

    value: Callable[[int], Any]
    start: int
    same: Callable[[int], Hashable]
    tidy: Callable[[int], int]


@dataclass(kw_only=True)
class Sizes:
    """Predicted sizes of the values of an axis, each made when it is asked for.

    `of` gives 0 for a value that is too small to be a network at all.
    """

    axis: Axis
    predict: Callable[[Any], float]
    known: dict[Hashable, float] = field(default_factory=dict)

    def of(self, number: int) -> float:
        """The predicted size."""
        key = self.axis.same(number)
        if key not in self.known:
            self.known[key] = self.predict(self.axis.value(self.axis.tidy(number)))
        return self.known[key]


def matched(match: Match, settings: TrialSettings, complete: Complete, *, key: Hashable) -> TrialSettings:
    """Return the settings with the value that `match` asks for, before `complete`.

    Args:
        match: What is asked for, and by which setting.
        settings: Those of one point, with any value of the setting that is solved for.
        complete: What turns them into those of a trial.
        key: Stands for `complete`: equal keys complete equal settings alike.

    Raises:
        StudyError: The network has no such setting, its size is not predicted exactly or does not grow with
            the setting, or no value comes near enough; the message gives the nearest ones.
        DataError: The data set is missing: its image size and classes are needed.
    """
    # What changes no prediction is left out, so that equal networks are solved once.
    train = TrainSettings()
    taken = {name: getattr(settings.train, name) for name in _OF_THE_SIZE}
    alike = replace(
        settings, seed=0, evaluate=EvaluateSettings(), probe=ProbeSettings(), train=replace(train, **taken)
    )
    return with_setting(settings, match.by, _solved(match, alike, _Completion(call=complete, key=key)))


_OF_THE_SIZE = (
    *("batch_size", "accumulate", "optimizer", "optimizer_options", "momentum", "nesterov", "fused"),
    "weight_decay",
)
"""Settings of the training that the memory of a step follows from."""


@dataclass(frozen=True, eq=True)
class _Completion:
    key: Hashable
    call: Complete = field(compare=False)


@lru_cache(maxsize=4096)
def _solved(match: Match, settings: TrialSettings, complete: _Completion) -> Any:
    _check(match, complete.call(settings))
    axis = _axis(match, complete.call(settings))

    def predict(value: Any) -> float:
        from revmodels.errors import WidthError

        try:
            return predicted(match, complete.call(with_setting(settings, match.by, value)))
        except WidthError:
            return 0.0

    sizes = Sizes(axis=axis, predict=predict)
    below, above = _neighbors(match, sizes, settings)
    best = min((n for n in (below, above) if n), key=lambda n: abs(sizes.of(n) - match.asked))
    if abs(sizes.of(best) - match.asked) > match.within * match.asked:
        raise _too_far(match, sizes, (below, above), complete.call(settings))
    return axis.value(axis.tidy(best))


def predicted(match: Match, settings: TrialSettings) -> float:
    """What `match` asks for, as it is predicted of a trial."""
    from study.plan.cost import count_parameters, trial_cost

    if match.quantity == "parameters":
        return count_parameters(settings)
    return trial_cost(settings).memory_bytes


def match_rows(match: Match, trials: Iterable[TrialSettings]) -> list[dict[str, Any]]:
    """Return what each network among some trials was given: the value that was found, what was asked for,
    what is predicted, and how far that is off, as a share of what was asked for.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for settings in trials:
        found = predicted(match, settings)
        row = {
            "model": settings.model.name,
            "depth": settings.model.depth,
            "width": settings.model.width,
            "strategy": settings.memory.strategy,
            "compute": settings.precision.compute,
            "batch": settings.train.batch_size,
            "by": match.by,
            "found": value_of(settings, match.by),
            "quantity": match.quantity,
            "asked": match.asked,
            "predicted": found,
            "off": found / match.asked - 1,
        }
        rows.setdefault(tuple(row.values()), row)
    return list(rows.values())


def with_setting(settings: TrialSettings, path: str, value: Any) -> TrialSettings:
    """Return the settings with another value of ``model.width``, ``model.options.heads`` or the like."""
    from study.spec.fields import with_value

    section, _, key = path.partition(".")
    values = vars(getattr(settings, section))
    changed = with_value(values, key, value)
    part = replace(getattr(settings, section), **{k: v for k, v in changed.items() if v is not values[k]})
    return replace(settings, **{section: part})


def value_of(settings: TrialSettings, path: str) -> Any:
    """The value of the setting that is solved for."""
    section, _, key = path.partition(".")
    if key.startswith("options."):
        return settings.model.options.get(key.partition(".")[2])
    return getattr(getattr(settings, section), key)


def _check(match: Match, settings: TrialSettings) -> None:
    """Check that the size of a trial can be solved for by the setting that the study names.

    Raises:
        StudyError: It cannot.
    """
    own = is_own("model.name", settings.model.name)
    if match.by.startswith("model.options") and not own:
        raise StudyError(
            "match.by",
            value=match.by,
            rule=f"{settings.model.name} is a preset, which has no options",
            remedy="match by model.width or model.depth",
        )
    if match.by in ("model.width", "model.depth") and own:
        raise StudyError(
            "match.by",
            value=match.by,
            rule=f"{settings.model.name} is a network of your own, whose size follows from its options",
            remedy="name the option: by: model.options.<name>",
        )
    strategy = strategy_of(settings)
    if match.quantity == "memory_peak_bytes" and not strategy.predicts_exactly:
        raise StudyError(
            "match.memory_peak_bytes",
            value=match.asked,
            rule=f"the memory of strategy {strategy.name} is not predicted exactly, and cannot be matched",
            remedy="match parameters, or leave that strategy out of the space",
        )


def _axis(match: Match, settings: TrialSettings) -> Axis:
    from revmodels.models.catalog import PRESETS

    if match.by == "model.width":
        channels = PRESETS[settings.model.name].channels

        def same(number: int) -> Hashable:
            return channels(number / WIDTHS)

        return Axis(
            value=lambda number: number / WIDTHS,
            start=max(1, round(settings.model.width * WIDTHS)),
            same=same,
            tidy=lambda number: _shortest(number, same),
        )
    if match.by == "model.depth":
        design = PRESETS[settings.model.name]
        smallest, step = design.depths
        return Axis(
            value=lambda number: smallest + (number - 1) * step,
            start=(design.depth - smallest) // step + 1,
            same=lambda number: number,
            tidy=lambda number: number,
        )
    start = value_of(settings, match.by)
    return Axis(
        value=lambda number: number,
        start=start if isinstance(start, int) and start > 0 else 16,
        same=lambda number: number,
        tidy=lambda number: number,
    )


def _shortest(number: int, same: Callable[[int], Hashable]) -> int:
    """Of the widths of the same network, the one with the fewest digits."""
    first = last = number
    while first > 1 and same(first - 1) == same(number):
        first -= 1
    while same(last + 1) == same(number):
        last += 1
    step = WIDTHS
    while last // step * step < first:
        step //= 10
    return last // step * step


def _neighbors(match: Match, sizes: Sizes, settings: TrialSettings) -> tuple[int, int]:
    """Return the two numbers next to each other between which the size asked for lies.

    The first is 0 where even the smallest value is too large.

    Raises:
        StudyError: The predicted size does not grow with the setting.
    """
    below, above, number, stalled = 0, 0, sizes.axis.start, 0
    while not above or above - below > 1:
        size = sizes.of(number)
        if len(sizes.known) > MOST or number > FAR:
            raise StudyError(
                f"match.{match.quantity}",
                value=match.asked,
                rule=f"the prediction does not grow with {match.by}: it is {size:,.0f} at "
                f"{sizes.axis.value(number)}, for {_named(settings)}",
                remedy="match by another setting",
            )
        before = above - below if below and above else None
        below, above = (number, above) if size < match.asked else (below, number)
        enclosed = bool(below and above)
        halved = enclosed and (before is None or 2 * (above - below) <= before)
        stalled = 0 if halved else stalled + 1
        number = _next(match.asked, sizes, (below, above), stalled)
    return below, above


def _next(asked: float, sizes: Sizes, ends: tuple[int, int], stalled: int) -> int:
    """Return the number to try next: strictly between the ends where there are two.

    `stalled` counts the guesses that have not halved the bracket, or not closed it: it ends creeping.
    """
    below, above = ends
    if not above:
        low = sizes.of(below)  # 0 of a network that is too small to be one, which says nothing
        guess = math.ceil(below * min(LEAP, asked / low)) if low else 2 * below
        return max(guess, below + 2**stalled)
    high = sizes.of(above)
    if not below:
        guess = math.floor(above * max(1 / LEAP, asked / high))
        return max(1, min(above - 2**stalled, guess))
    low = sizes.of(below)
    if stalled > 1 or not low:
        guess = (below + above) // 2
    else:
        share = math.log(asked / low) / math.log(high / low)
        guess = round(below * (above / below) ** share)
    return min(above - 1, max(below + 1, guess))


def _too_far(match: Match, sizes: Sizes, neighbors: tuple[int, int], settings: TrialSettings) -> StudyError:
    asked = match.asked
    name, unit, factor = (
        ("memory", " MB", 1e-6) if match.quantity == "memory_peak_bytes" else ("parameters", "", 1)
    )
    found = [
        f"{sizes.axis.value(sizes.axis.tidy(n)):g} gives {sizes.of(n) * factor:,.4g}{unit} "
        f"({sizes.of(n) / asked - 1:+.1%})"
        for n in neighbors
        if n and sizes.of(n)
    ]
    if len(found) == 1:
        found.append("and there is none smaller")
    off = min(abs(sizes.of(n) / asked - 1) for n in neighbors if n)
    rule = (
        f"no {match.by} of {_named(settings)} is predicted within {match.within:.3g} of this: "
        f"{', '.join(found)}"
    )
    return StudyError(
        f"match.{match.quantity}",
        value=asked,
        rule=rule,
        remedy=f"allow within: {math.ceil(off * 1000) / 1000:g}, ask for another {name}, or match by "
        "another setting",
    )


def _named(settings: TrialSettings) -> str:
    model, batch = settings.model, settings.train.batch_size
    depth = f" of depth {model.depth}" if model.depth else ""
    return f"{model.name}{depth} with strategy {settings.memory.strategy} and batch {batch}"
