"""Rows of the results store as plain dicts: exactly the columns of `analysis.schema`, null where unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from analysis.schema import TABLES
from study import outcomes
from study.errors import StudyError
from study.identity import canonical_json, resolve
from study.provenance import provenance
from study.settings.trial import Trial, columns_of
from study.tasks.naming import task_name


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The rows of one trial attempt, for the tables of the same names."""

    trial: dict[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def as_attempt(self, attempt: int) -> TrialResult:
        """The same rows as those of another attempt."""

        def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{**row, "attempt": attempt} for row in rows]

        (trial,) = numbered([self.trial])
        return TrialResult(trial=trial, epochs=numbered(self.epochs), blocks=numbered(self.blocks))


def full_row(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with null for every other column of the table.

    Raises:
        KeyError: A value has no column.
    """
    columns = [column.name for column in TABLES[table].columns]
    unknown = sorted(set(values) - set(columns))
    if unknown:
        raise KeyError(f"the table {table} has no column {unknown[0]}")
    return {name: values.get(name) for name in columns}


def metric_columns(values: Mapping[str, Any], before: str | None = None) -> dict[str, Any]:
    """Return metrics as columns: those that the schema lacks stand together in ``metrics_json``.

    Args:
        values: Metrics by the name that their column has, or would have.
        before: The ``metrics_json`` that they are added to.
    """
    names = TABLES["trials"].types
    others = {name: value for name, value in values.items() if name not in names}
    found = {name: value for name, value in values.items() if name in names}
    if others or before:
        found["metrics_json"] = json.dumps({**json.loads(before or "{}"), **others}, sort_keys=True)
    return found


def with_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the metrics that its table has no column for, each under its own name."""
    return {**row, **json.loads(row.get("metrics_json") or "{}")}


def settings_columns(trial: Trial, attempt: int) -> dict[str, Any]:
    """The identity and settings columns of a trial; nothing is built or read but the data's fingerprint."""
    settings = trial.settings
    columns: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "study": trial.study,
        "attempt": attempt,
        **columns_of(settings),
        "workers_min": settings.scaling.min_workers if settings.scaling.elastic else None,
        "parallel": settings.scaling.parallel if settings.scaling.distributed else None,
        "task": task_name(settings),
        "epochs": settings.train.epochs if settings.train.by_epoch else None,
        "origin": trial.origin,
        "memory_predicted_bytes": trial.memory_predicted_bytes,
    }
    try:
        resolved = resolve(settings)
        columns.update(depth=resolved.model.depth, strategy=resolved.memory.strategy)
        columns.update(grid_bits=resolved.precision.grid_bits, anchor_every=resolved.memory.anchor_every)
        columns["context_length"] = resolved.data.context_length
        columns["coupling_rule"] = resolved.model.coupling_text
        columns["activation_budget"] = resolved.memory.activation_budget
        columns["memory_budget_bytes"] = resolved.memory.memory_budget_bytes
        columns.update(_design(settings.model.name))
        columns["config_json"] = canonical_json(settings)
    except StudyError:
        pass  # The trial fails for the same reason, and its row says so; the other columns stay useful.
    return columns


def _design(model: str) -> dict[str, str]:
    from revmodels.models.catalog import PRESETS

    if model not in PRESETS:  # one that the study brings along
        return {}
    return {"family": PRESETS[model].family, "block": PRESETS[model].block}


def lost_result(
    trial: Trial,
    error: BaseException | None = None,
    *,
    attempt: int = 0,
    started_at: datetime | None = None,
    outcome: str | None = None,
    state: Mapping[str, Any] | None = None,
) -> TrialResult:
    """Return the rows of a trial whose process died before it could write them.

    That is settings, outcome and provenance, and what it had reached by its last checkpoint: its epochs, and
    the metrics of the last of them.

    Args:
        trial: What was being trained.
        error: What the driver was told.
        attempt: Which try it was.
        started_at: When the driver handed the trial out; None leaves both times of the trial unknown.
        outcome: Overrides what the error stands for.
        state: The trial's last checkpoint, as `study.train.trial.train_trial` saved it.
    """
    now = datetime.now(UTC)
    ended = outcomes.describe(error or RuntimeError("the process of the trial died"))
    if outcome is not None:
        ended["outcome"] = outcome
    values = {
        **settings_columns(trial, attempt),
        **(state["columns"] if state else {}),
        **ended,
        **provenance(),
        "epochs_done": state["epoch"] if state else 0,
        "steps_done": len(state["step_times_s"]) if state else 0,
        "started_at": started_at,
        "finished_at": now,
        "wall_s": (now - started_at).total_seconds() if started_at else state["wall_s"] if state else None,
    }
    key = {"trial_id": trial.trial_id, "study": trial.study, "attempt": attempt}
    return TrialResult(
        trial=full_row("trials", values),
        epochs=[full_row("epochs", {**row, **key}) for row in (state["epochs"] if state else ())],
        blocks=[full_row("blocks", {**row, **key}) for row in (state["blocks"] if state else ())],
    )
