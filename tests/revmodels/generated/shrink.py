"""Makes the case of a finding as plain as it can be while the same finding stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from tests.revmodels.generated.case import Case
from tests.revmodels.generated.judge import Verdict, judge

PLAIN = Case()


def same(a: Verdict, b: Verdict) -> bool:
    """Whether both are one finding: the same outcome, and the same error or kind of thing that differs."""
    return a.outcome == b.outcome and signature(a) == signature(b)


def signature(verdict: Verdict) -> str:
    """A verdict's words without its numbers and names of modules."""
    words = re.sub(r"(body|blocks|stem|head)\.\S+", "…", verdict.what)
    words = re.sub(r"event \d+ \(\w+\): ", "", words)
    return re.sub(r"\d+", "#", words)[:60]


def shrink(case: Case, verdict: Verdict, *, tries: int = 200) -> Case:
    """A plainer case with the same finding, by dropping and replacing one thing after another."""
    goes_on = True
    while goes_on:
        goes_on = False
        for candidate in _plainer(case):
            tries -= 1
            if tries < 0:
                return case
            try:
                stands = same(judge(candidate), verdict)
            except Exception:
                continue  # No legal case.
            if stands:
                case, goes_on = candidate, True
                break
    return case


def _plainer(case: Case) -> Iterator[Case]:
    for event in range(len(case.events) - 1, 0, -1):
        yield replace(case, events=_without(case.events, event))
    for field in fields(Case):
        value, plain = getattr(case, field.name), getattr(PLAIN, field.name)
        if value != plain and field.name not in ("events", "residuals", "units", "order", "kind"):
            yield replace(case, **{field.name: plain})
    for i in range(len(case.hooks)):
        yield replace(case, hooks=_without(case.hooks, i))
    for i in range(len(case.order)):
        if len(case.order) > 1:
            yield replace(case, order=_without(case.order, i), entry=min(case.entry, len(case.order) - 2))
    for i in range(len(case.residuals)):
        for shorter in _shorter(case.residuals[i]):
            yield replace(case, residuals=(*case.residuals[:i], shorter, *case.residuals[i + 1 :]))
    for i, unit in enumerate(case.units):
        if unit != (unit[0], unit[0]):
            yield replace(case, units=(*case.units[:i], (unit[0], unit[0]), *case.units[i + 1 :]))
    for i, event in enumerate(case.events):
        plain_event = {"call": ("call", "plain")}.get(
            str(event[0]), ("backward", event[1], "weighted", False)
        )
        if event != plain_event and event[0] != "change" and event[0] != "copy" and event[0] != "switch":
            yield replace(case, events=(*case.events[:i], plain_event, *case.events[i + 1 :]))


def _shorter(layers: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for i, layer in enumerate(layers):
        if len(layers) > 1:
            yield _without(layers, i)
        if isinstance(layer, tuple):
            yield (*layers[:i], *layer[1], *layers[i + 1 :])
            for inside in _shorter(layer[1]):
                yield (*layers[:i], (layer[0], inside), *layers[i + 1 :])


def _without(items: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    return (*items[:i], *items[i + 1 :])


def text(case: Case) -> str:
    """The case as code, without what is as plain as can be."""
    given = [
        f"{f.name}={getattr(case, f.name)!r}"
        for f in fields(Case)
        if getattr(case, f.name) != getattr(PLAIN, f.name)
    ]
    return f"Case({', '.join(given)})"
