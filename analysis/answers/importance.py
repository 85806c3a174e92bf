"""How much each setting matters to a result, by two evaluators of Optuna over the rows of a store.

PED-ANOVA (Watanabe, Bansal and Hutter, 2023) asks which settings set the best tenth apart from the rest;
fANOVA (Hutter, Hoos and Leyton-Brown, 2014) asks how much of all variance a setting explains.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.documents import flat_config
from analysis.stats import Row, finite, sample

Direction = Literal["maximize", "minimize"]

FEWEST = 10
"""Trials below which no importance is computed."""

MOST = 1_000
"""Trials that enter at most; a larger store is sampled evenly."""

_NOT_SETTINGS = ("probe", "recipe", "data.source")


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Importances of one result, each evaluator's summing to 1.

    Attributes:
        column: the column of trials that is explained.
        n: trials that entered.
        settings: dotted paths, the most important by PED-ANOVA first.
        ped_anova: importance by path.
        fanova: importance by path.

    """

    column: str
    n: int
    settings: tuple[str, ...]
    ped_anova: dict[str, float]
    fanova: dict[str, float]


def importance(rows: Sequence[Row], column: str, *, direction: Direction = "maximize") -> Importance | None:
    """Computes how much the settings that vary matter to `column`.

    Args:
        rows: rows of the trials view; those that ended ok with a finite value and settings enter.
        column: the result to explain.
        direction: ``maximize`` or ``minimize``: which end PED-ANOVA looks at.

    Returns:
        None with fewer than `FEWEST` trials, fewer than two settings that vary, or a result that does not.

    """
    usable = [r for r in rows if r["outcome"] == "ok" and finite(r[column]) and r["config_json"]]
    usable = sample(usable, MOST)
    values = [r[column] for r in usable]
    settings = [_settings(r) for r in usable]
    paths = sorted({path for one in settings for path in one})
    varied = [p for p in paths if len({json.dumps(one.get(p)) for one in settings}) > 1]
    if len(usable) < FEWEST or len(varied) < 2 or len(set(values)) < 2:
        return None
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    distributions: dict[str, Any] = {
        p: _distribution(optuna, [one.get(p) for one in settings]) for p in varied
    }
    study = _silent_study(optuna, direction)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={p: _value(distributions[p], one.get(p)) for p in varied},
                distributions=distributions,
                value=float(value),
            )
            for one, value in zip(settings, values, strict=True)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluators = (PedAnovaImportanceEvaluator(), FanovaImportanceEvaluator(seed=0))
        ped, fanova = (
            optuna.importance.get_param_importances(study, evaluator=e, params=varied, normalize=True)
            for e in evaluators
        )
    order = tuple(sorted(varied, key=lambda p: (-_finite(ped[p]), -_finite(fanova[p]), p)))
    return Importance(
        column=column,
        n=len(usable),
        settings=order,
        ped_anova={p: _finite(ped[p]) for p in order},
        fanova={p: _finite(fanova[p]) for p in order},
    )


def numeric_settings(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Settings that are numbers in every row and take three values or more: value by trial id, by path."""
    found: dict[str, dict[str, float]] = {}
    usable = [row for row in rows if row["config_json"]]
    for row in usable:
        for path, value in _settings(row).items():
            if finite(value):
                found.setdefault(path, {})[row["trial_id"]] = float(value)
    return {
        path: values
        for path, values in found.items()
        if len(values) == len(usable) and len(set(values.values())) >= 3 and path != "seed"
    }


def _settings(row: Row) -> dict[str, Any]:
    return {
        path: json.loads(text)
        for path, text in flat_config(row["config_json"])
        if path not in _NOT_SETTINGS and path.partition(".")[0] not in _NOT_SETTINGS
    }


def _silent_study(optuna: Any, direction: Direction) -> Any:
    """A study in memory; Optuna would announce it on the terminal."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.InMemoryStorage()
        return optuna.create_study(direction=direction, storage=storage, study_name="importance")
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(optuna: Any, values: Sequence[Any]) -> Any:
    """Numbers on a scale, logarithmic where they span decades; all else, and few numbers, as choices."""
    numbers = [v for v in values if finite(v)]
    if len(numbers) < len(values) or len(set(numbers)) < 5:
        words = sorted({json.dumps(v) for v in values})
        return optuna.distributions.CategoricalDistribution(words)
    low, high = float(min(numbers)), float(max(numbers))
    return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high / low >= 30)


def _value(distribution: Any, value: Any) -> Any:
    return json.dumps(value) if hasattr(distribution, "choices") else float(value)


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0
