"""From pydantic's error details to `study.errors.Problem`: path, value, rule, remedy in the file's words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from study.errors import NO_VALUE, Problem, nearest
from study.settings.setting import BrokenRule

ONE, MANY = "<one>", "<many>"
"""Tags of unions such as "one space or a list of them"; they are taken out of the paths of problems."""

_RULES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "invalid_key": "a key must be text",
    "string_pattern_mismatch": "must be letters, digits, '_', '.', '-', and start with a letter or digit",
}


def problems_of(
    error: ValidationError, *, keys: Callable[[Sequence[int | str]], Iterable[str]], prefix: str = ""
) -> list[Problem]:
    """Every error of pydantic as a `Problem`; `keys` gives the legal keys beside the one at a location."""
    found = [
        (details["type"], _problem(details, keys, prefix)) for details in error.errors(include_url=False)
    ]
    paths = [problem.path for _, problem in found]
    # A list whose entries are all refused is then "too short" as well; that is no problem of its own.
    return [
        problem
        for kind, problem in found
        if not (kind == "too_short" and any(path.startswith(f"{problem.path}[") for path in paths))
    ]


def dotted(location: Iterable[int | str]) -> str:
    """Return a location as the path of a study file.

    >>> dotted(["space", "<one>", "model.depth", "grid", 2])
    'space.model.depth.grid[2]'
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in (ONE, MANY, "[key]"):
            path += f".{part}" if path else str(part)
    return path


def _problem(details: Any, keys: Callable[[Sequence[int | str]], Iterable[str]], prefix: str) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    location = [part for part in (prefix, *details["loc"]) if part not in ("", ONE, MANY, "[key]")]
    value, remedy = details["input"], str(context.get("remedy", ""))
    rule = _RULES.get(kind, details["msg"])
    broken = context.get("error")
    if isinstance(broken, BrokenRule):
        rule, remedy = broken.rule, broken.remedy
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        rule, remedy = "unknown key", nearest(location[-1], keys(location))
    elif kind == "missing" and isinstance(location[-1], int):
        location.pop()
        rule, remedy = "must be [low, high]", "give exactly two numbers"
    elif kind == "missing":
        value = NO_VALUE
    elif kind == "too_long":
        rule, remedy = "must be [low, high]", "give exactly two numbers"
    elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        rule, remedy = _bound(kind, context)
    elif kind == "int_type" and location[-1] == "workers" and isinstance(value, dict):
        rule, remedy = "must be a whole number, or a least and a greatest one", "for example {min: 1, max: 4}"
    elif kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        remedy = "write it without quotes" if _is_number(value) or value in ("true", "false") else ""
    elif kind in ("int_type", "int_from_float") and isinstance(value, float):
        remedy = f"the nearest is {round(value)}" if math.isfinite(value) else ""
    elif kind == "too_short":
        remedy = "leave it out, or give at least one entry"
    elif kind in ("dict_type", "model_type", "dataclass_type") and location and "." in str(location[-1]):
        remedy = f"for example {{grid: {value if isinstance(value, list) else [value]}}}"
    return Problem(
        path=dotted([prefix, *location] if prefix else location), value=value, rule=rule, remedy=remedy
    )


def _bound(kind: str, context: dict[str, Any]) -> tuple[str, str]:
    limit = next(context[key] for key in ("gt", "ge", "lt", "le") if key in context)
    limit = int(limit) if float(limit).is_integer() else limit
    words = {"greater_than": "more than", "greater_than_equal": "at least", "less_than": "less than"}
    rule = f"must be {words.get(kind, 'at most')} {limit}"
    return rule, f"the nearest is {limit}" if kind.endswith("_equal") else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
