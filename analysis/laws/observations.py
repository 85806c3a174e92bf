"""What the rows of a study say of loss, size, data and compute: the points that laws are fitted to.

A training gives one point for each of its evaluations that counts. An evaluation is *final* if the schedule
of the learning rate has ended by then, which under a constant rate it has at any time. All others are
*early*. Under `wsd` those at the full rate count and those in the cooldown do not. Under every other
schedule a shorter training would have had another rate at that step. Early points tell of data at no
further cost (Hagele et al. 2024, arXiv 2405.18392; Choshen et al. 2024, arXiv 2410.11840), but lie above
what a finished training would reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.errors import AnalysisError
from analysis.schema import EPOCHS, TRIALS
from analysis.stats import group_by

if TYPE_CHECKING:
    from analysis.store.store import Store

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
CHOICES = ("auto", "final", "all")
LEFT_OUT = 0.1
"""Share of a training at its start whose evaluations tell more of the start than of the data."""
DECAY_FRACTION = 0.2
"""Share of a `wsd` training in which the rate falls, where its settings do not say."""
ALIKE = ("data", "family")
"""What must agree in all rows of a law."""
TOLD = ("optimizer", "schedule", "compute_dtype", "stream_dtype", "context_length")
"""What may differ, and is then said."""
TUNED = ("learning_rate", "batch_size", "weight_decay")
"""What may be tuned for each size and amount of data: the best counts."""


class ObservationError(AnalysisError):
    """The rows of a study say nothing of a law."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Points of loss, n of them, sorted by size and then by data.

    Attributes:
        parameters: (n,) sizes N, in parameters.
        data: (n,) data seen by then, D.
        compute: (n,) operations of the training by then, C, without recomputation.
        loss: (n,) losses of the validation set.
        final: (n,) whether the schedule had ended.
        trial_ids: (n,) the training behind each.
        seeds: How many seeds the settings were trained with, at most.
        names: The columns behind `parameters`, `data`, `compute` and `loss`.
        notes: What was counted how, and what was left out.
        warnings: What makes a law of these points doubtful.
    """

    parameters: Array
    data: Array
    compute: Array
    loss: Array
    final: Flags
    trial_ids: tuple[str, ...]
    seeds: int
    names: Mapping[str, str]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def unit(self) -> str:
        """What the data are counted in."""
        return self.names["data"].partition("_")[0]

    def only(self, wanted: Flags) -> Observations:
        """The points for which `wanted`, of shape (n,), holds."""
        return replace(
            self,
            **{
                name: getattr(self, name)[wanted]
                for name in ("parameters", "data", "compute", "loss", "final")
            },
            trial_ids=tuple(t for t, kept in zip(self.trial_ids, wanted, strict=True) if kept),
        )


def observe(
    store: Store, *, loss: str = "loss_val", evaluations: str = "auto", where: str | None = None
) -> Observations:
    """Collect the points of a study, or of a store.

    Args:
        store: The rows.
        loss: A column of both trials and epochs that falls with size and data, such as ``loss_val``.
        evaluations: Which count: ``final``, ``all``, or ``auto``, all only where the final ones are of fewer
            than three amounts of data.
        where: A condition in SQL on the columns of ``trials``.

    Raises:
        ObservationError: No training that ended ok has the columns, or several kinds of data or of networks
            are mixed.
        QueryError: The condition is no SQL, or there is no such column.

    Returns:
        The points.
    """
    if evaluations not in CHOICES:
        raise ObservationError(f"evaluations: choose one of {', '.join(CHOICES)}; received {evaluations!r}")
    trials = _trials(store, where)
    _check_alike(trials)
    size = "parameters_non_embedding" if _all_have(trials, "parameters_non_embedding") else "parameters"
    data = "tokens_seen" if _all_have(trials, "tokens_seen") else "examples_seen"
    for column, what in ((size, "parameters"), (data, "data seen")):
        if not _all_have(trials, column):
            raise ObservationError(
                f"a law of loss needs the {what} of each training, and the column {column} is empty in "
                f"{sum(row[column] is None for row in trials)} of {len(trials)} trials: they were trained by "
                "an earlier version. Run the study again into a new store, or leave them out with --where"
            )
    points = _points(store, trials, size=size, data=data, loss=loss)
    wanted = _chosen(points, evaluations)
    found = points.only(wanted)
    if not len(found):
        raise ObservationError(
            f"no evaluation counts as {evaluations}: {len(points)} are of schedules that had not ended. "
            "--evaluations all takes them too"
        )
    warnings = list(found.warnings)
    early = int((~found.final).sum())
    if early:
        warnings.append(
            f"{early} of {len(found)} evaluations are from before the end of a schedule: they lie above what "
            "a finished training of that length reaches, by a factor that is fitted as one number for all."
        )
    left = len(points) - len(found)
    notes = list(found.notes)
    if left:
        notes.append(f"{left} evaluations of schedules that had not ended are left out.")
    return replace(found, notes=tuple(notes), warnings=tuple(warnings))


def _trials(store: Store, where: str | None) -> list[dict[str, Any]]:
    condition = f" AND ({where})" if where else ""
    wanted = (
        *("trial_id", "parameters", "parameters_non_embedding", "tokens_seen", "examples_seen", "seed"),
        *("steps_done", "flops_model", "config_json", "examples_train", "schedule"),
        *ALIKE, *TOLD, *TUNED,
    )  # fmt: skip
    columns = ", ".join(dict.fromkeys(wanted))
    rows = store.sql(f"SELECT {columns} FROM trials WHERE outcome = 'ok'{condition}").to_pylist()
    if not rows:
        which = f" for which {where} holds" if where else ""
        of = f"the study {store.study!r}" if store.study else f"the store {store.path!r}"
        raise ObservationError(f"{of} has no trial{which} that ended ok: there is nothing to fit a law to")
    return rows


def _all_have(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(row[name] is not None for row in rows)


def _check_alike(rows: Sequence[Mapping[str, Any]]) -> None:
    for name in ALIKE:
        values = sorted({str(row[name]) for row in rows})
        if len(values) > 1:
            raise ObservationError(
                f"one law holds for one {name}, and these trials have {len(values)}: "
                f"{', '.join(values[:6])}. Choose one, for example with --where \"{name} = '{values[0]}'\""
            )


def _points(
    store: Store, trials: Sequence[dict[str, Any]], *, size: str, data: str, loss: str
) -> Observations:
    by_id = {row["trial_id"]: row for row in trials}
    if loss not in EPOCHS.types or loss not in TRIALS.types:
        choices = [c for c in EPOCHS.types if c.endswith("_val") and c in TRIALS.types]
        raise ObservationError(
            f"loss: a column of evaluations, one of {', '.join(choices)}; received {loss!r}"
        )
    found = store.sql(
        f"SELECT trial_id, step, {data} AS data, {loss} AS loss FROM epochs "
        f"WHERE isfinite({loss}) AND {loss} > 0 AND {data} > 0 AND step > 0 ORDER BY trial_id, step"
    ).to_pylist()
    found = [row for row in found if row["trial_id"] in by_id]
    if not found:
        raise ObservationError(
            f"no evaluation of these {len(trials)} trials has both {loss} and {data} above 0: a law of loss "
            "needs them. `revstudy describe epochs` says what each column is"
        )
    counted = all(row["flops_model"] and row["steps_done"] for row in trials)
    rows = []
    for row in found:
        trial = by_id[row["trial_id"]]
        phase = _phase(trial, row["step"])
        if phase is None:
            continue
        n = float(trial[size])
        per_datum = trial["flops_model"] * trial["steps_done"] / trial[data] if counted else 6 * n
        rows.append((n, float(row["data"]), per_datum * row["data"], row["loss"], phase, row["trial_id"]))
    rows.sort()
    rows, tuned = _best_tuned(rows, by_id)
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    notes = [
        f"{len(by_id)} trainings, {len(rows)} evaluations. N is {size}, D is {data}, the loss is {loss}, "
        + ("C is flops_model times steps." if counted else "C is taken as 6·N·D, since flops_model is empty.")
    ]
    if size == "parameters":
        notes.append("parameters_non_embedding is empty, so N counts all parameters, embeddings among them.")
    if tuned:
        notes.append(
            f"{tuned} trainings are left out, since others of equal size and data reached a lower loss with "
            "another learning rate, batch or decay."
        )
    return Observations(
        **{
            name: np.array(columns[i], float)
            for i, name in enumerate(("parameters", "data", "compute", "loss"))
        },
        final=np.array(columns[4], bool),
        trial_ids=tuple(columns[5]),
        seeds=_seeds(trials),
        names={
            "parameters": size,
            "data": data,
            "compute": "flops_model" if counted else "6·N·D",
            "loss": loss,
        },
        notes=tuple(notes),
        warnings=tuple(_doubts(trials)),
    )


def _phase(trial: Mapping[str, Any], step: int) -> bool | None:
    """Whether an evaluation is final; None where it tells nothing."""
    last = trial["steps_done"] or step
    train = _training(trial["config_json"])
    if trial["schedule"] == "constant":
        return True if step >= LEFT_OUT * last else None
    if step >= last:
        return train.get("patience") is None
    if step < max(LEFT_OUT * last, train.get("warmup_steps") or 0):
        return None
    if trial["schedule"] == "wsd":
        return False if step <= (1 - train.get("decay_fraction", DECAY_FRACTION)) * last else None
    return False


@lru_cache(maxsize=4096)
def _training(text: str | None) -> dict[str, Any]:
    """The settings of the training in config_json; nothing if it is not an object."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    train = found.get("train") if isinstance(found, dict) else None
    return train if isinstance(train, dict) else {}


def _best_tuned(
    rows: list[tuple[Any, ...]], by_id: Mapping[str, Mapping[str, Any]]
) -> tuple[list[tuple[Any, ...]], int]:
    """Of trainings of equal size and length that differ in what is tuned, those with the lowest mean loss."""
    last: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        if row[5] not in last or row[1] > last[row[5]][1]:
            last[row[5]] = row
    dropped: set[str] = set()
    for same in group_by(last.values(), lambda row: row[:2]).values():
        settings = group_by(same, lambda row: tuple(by_id[row[5]][name] for name in TUNED))
        best = min(settings.values(), key=lambda seeds: float(np.mean([row[3] for row in seeds])))
        dropped |= {row[5] for row in same} - {row[5] for row in best}
    return [row for row in rows if row[5] not in dropped], len(dropped)


def _chosen(points: Observations, evaluations: str) -> Flags:
    everything = np.ones(len(points), bool)
    if evaluations == "all":
        return everything
    if evaluations == "auto" and len(np.unique(points.data[points.final])) < 3:
        return everything
    return points.final


def _seeds(trials: Sequence[Mapping[str, Any]]) -> int:
    return len({row["seed"] for row in trials})


def _doubts(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    doubts = []
    for name in TOLD:
        values = sorted({str(row[name]) for row in trials if row[name] is not None})
        if len(values) > 1:
            doubts.append(
                f"The trainings differ in {name}: {', '.join(values[:6])}. One law is fitted to all."
            )
    if _seeds(trials) == 1:
        doubts.append(
            "All trainings have one seed: what a seed changes cannot be told from what the law misses."
        )
    if any(_training(row["config_json"]).get("patience") is not None for row in trials):
        doubts.append("Trainings with train.patience may have ended early: none of them counts as final.")
    passes = max(_passes(row) for row in trials)
    if passes > 4:
        doubts.append(
            f"The training set was passed up to {passes:.3g} times. Data seen more than about four times "
            "teach less than new ones (Muennighoff et al. 2023, arXiv 2305.16264), which the law ignores."
        )
    return doubts


def _passes(row: Mapping[str, Any]) -> float:
    seen, examples = row["examples_seen"], row["examples_train"]
    return seen / examples if seen and examples else 0.0
