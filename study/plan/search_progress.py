"""How far an Optuna step has come, read from the rows of the store alone.

A search keeps no state of its own. Its finished points are the rows whose settings lie in its space; they are
what the sampler starts from, and how a later run knows that nothing is left to propose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from study.errors import StudyError
from study.identity import trial_id
from study.plan.points import apply_point
from study.plan.searches import PlannedSearch, search_space
from study.spec.axes import Axis
from study.spec.study import Study

Row = Mapping[str, Any]

Point = dict[str, Any]


def known_points(
    study: Study, search: PlannedSearch, rows: Mapping[str, Row]
) -> list[tuple[Point, list[Row]]]:
    """The search's points that the store has rows of, whoever proposed them, with those rows."""
    space = search_space(study, search.step)
    found: dict[str, tuple[Point, list[Row]]] = {}
    for row in sorted(rows.values(), key=lambda row: str(row["started_at"])):
        if row.get("error_class") == KeyboardInterrupt.__name__:
            continue  # it goes on, so it is still to be proposed
        point = point_of(row, space) if row["seed"] in search.seeds and row["config_json"] else None
        if point is None:
            continue
        try:
            same = trial_id(apply_point(study, point, seed=row["seed"])) == row["trial_id"]
        except StudyError:
            continue
        if same:
            found.setdefault(json.dumps(point, sort_keys=True), (point, []))[1].append(row)
    return list(found.values())


def remaining(study: Study, search: PlannedSearch, rows: Mapping[str, Row]) -> PlannedSearch:
    """Return the search with `trials` cut to the points it has still to propose.

    Points that this study's search proposed in earlier runs count, however they ended, once every seed has. A
    trial that the user interrupted has not ended. A finite space cannot
    yield more than its untried points.
    """
    known = complete(search, known_points(study, search, rows))
    own = sum(
        any(row["study"] == study.name and row["origin"] == search.sampler for row in point_rows)
        for _, point_rows in known
    )
    left = search.trials - own
    values = [axis.values for axis in search_space(study, search.step).values()]
    if all(v is not None for v in values):
        left = min(left, math.prod(len(set(v or ())) for v in values) - len(known))
    return replace(search, trials=max(0, left))


def complete(
    search: PlannedSearch, known: Sequence[tuple[Point, list[Row]]]
) -> list[tuple[Point, list[Row]]]:
    """Those known points that have a row for every seed."""
    return [(point, rows) for point, rows in known if {r["seed"] for r in rows} == set(search.seeds)]


def point_of(row: Row, space: Mapping[str, Axis]) -> Point | None:
    """The row's values on the axes of a space, or None where one lies outside."""
    config = json.loads(row["config_json"])
    point: Point = {}
    for path, axis in space.items():
        section, _, key = path.partition(".")
        inside, _, option = key.partition(".")
        value = (config.get(section) or {}).get(inside)
        value = (value or {}).get(option) if option else value
        if axis.bounds is not None and axis.values is None:
            if not isinstance(value, int | float) or not axis.bounds[0] <= value <= axis.bounds[1]:
                return None
            point[path] = value
            continue
        # A null in the file stands for a default that the row spells out.
        values = axis.values or ()
        match = next((v for v in values if v == value), None if None in values else _NOWHERE)
        if match is _NOWHERE:
            return None
        point[path] = match
    return point


_NOWHERE: Any = object()
