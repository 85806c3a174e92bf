"""How long trials will take: from the store's own past, from a short calibration, or honestly unknown.

The rule, in order of preference:

``same``
    Past trials with the same model, precision, memory strategy, batch, workers and data, on the same kind
    of machine: the median of their wall time per training example, times the examples of the new trial.
``scaled``
    Past trials on the same kind of machine with as many workers and the same arithmetic: of the one whose
    work is nearest, the wall time per example, times the ratio of the work per example.
``calibrated``
    A few steps of the cheapest model of the plan, trained here and now; scaled in the same way. Evaluation
    and fidelity probes come on top.
``unknown``
    None of these.

Work per example is what a training step multiplies: the forward pass, counted by `revmodels.operations` on
fake tensors, times 3 if activations are kept and 4 if they are rebuilt or recomputed (a backward pass costs
twice its forward; rebuilding adds one more). `study.train.operations` counts whole steps to the last
operation, which takes several times as long; past trials are too many for that.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from study.errors import StudyError
from study.identity import canonical, resolve, strategy_of
from study.settings.data import DataSettings
from study.settings.model import MemorySettings, ModelSettings
from study.settings.run import ScalingSettings
from study.settings.setting import Options
from study.settings.train import EvaluateSettings
from study.settings.trial import Trial, TrialSettings
from study.tasks.registry import task_of
from study.tasks.task import Task
from study.train.length import length_of, shared_batch

Row = Mapping[str, Any]
CALIBRATION_STEPS = 6
CANDIDATES = 32
"""Past models among which the nearest is looked for; each one's work takes a moment to count."""
SAME, SCALED, CALIBRATED, UNKNOWN = "same", "scaled", "calibrated", "unknown"
_KINDS = ("model", "precision", "memory", "data", "workers", "parallel")


@dataclass(frozen=True, kw_only=True)
class Time:
    """Predicted seconds of a trial (None: unknown), where they come from, and how many past trials."""

    seconds: float | None = None
    source: str = UNKNOWN
    trials: int = 0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was timed: a model, its seconds and work per training example, and the examples of an epoch."""

    model: str
    examples: int
    example_s: float
    work: float


def past_of(row: Row) -> dict[str, Any] | None:
    """What an estimate needs of a past row; None if it tells no time."""
    examples, epochs, seconds = row["examples_train"], row["epochs_done"], row["wall_s"]
    if not (examples and epochs and seconds):
        return None
    seen = row.get("examples_seen") or examples * epochs
    return {
        "config": json.loads(row["config_json"]),
        "row": row,
        "per_example_s": seconds / seen,
    }


class Clock:
    """Predicts times from past trials, all of which it is given once."""

    def __init__(self, rows: Iterable[Row], *, calibrated: Calibration | None = None) -> None:
        self._past = [past for row in rows if (past := past_of(row)) is not None]
        self._calibrated = calibrated
        self._known: dict[TrialSettings, Time] = {}
        self._same: dict[str, list[float]] = {}
        self._examples: dict[str, int] = {}
        for past in self._past:
            self._same.setdefault(_key(past["config"], past["row"]), []).append(past["per_example_s"])
            self._examples.setdefault(_text(past["config"]["data"]), past["row"]["examples_train"])
        self._near: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        kept: set[tuple[Any, ...]] = set()
        for past in self._past:
            machine = _machine_of(past["row"])
            kind = (*machine, past["row"]["workers"], past["row"]["compute_dtype"])
            known = (*kind, _text({name: past["config"][name] for name in ("model", "memory")}))
            if known not in kept:
                kept.add(known)
                self._near.setdefault(kind, []).append(past)

    def time(self, settings: TrialSettings) -> Time:
        """The predicted wall time of one trial; its seed has no part in it."""
        settings = replace(resolve(settings), seed=0)
        if settings not in self._known:
            self._known[settings] = self._time(settings)
        return self._known[settings]

    def _time(self, settings: TrialSettings) -> Time:
        config = canonical(settings)
        examples = self._examples.get(_text(config["data"])) or settings.data.train_examples
        machine = machine_for(settings.scaling)
        if examples is None and self._calibrated is not None:
            examples = self._calibrated.examples
        if examples is None:
            return Time()
        length = length_of(
            settings,
            examples=examples,
            tokens_per_example=task_of(settings).shape(settings).tokens_per_example
            if settings.train.tokens
            else None,
            workers=settings.scaling.workers,
        )
        batch = shared_batch(settings.train.batch_size, examples, settings.scaling.workers)
        total = length.steps * batch
        same = self._same.get(_key(config, {"batch_size": settings.train.batch_size, **machine}))
        if same:
            return Time(seconds=total * statistics.median(same), source=SAME, trials=len(same))
        work = work_per_example(settings)
        kind = (*machine.values(), settings.scaling.workers, settings.precision.compute)
        near = self._nearest(kind, settings, config["data"]["source"], work) if work else None
        if near is not None and work:
            past, other = near
            return Time(seconds=total * past["per_example_s"] * work / other, source=SCALED, trials=1)
        if self._calibrated is not None and work:
            per_example = self._calibrated.example_s * work / self._calibrated.work
            per_example /= settings.scaling.workers
            return Time(seconds=total * per_example, source=CALIBRATED)
        return Time()

    def _nearest(
        self, kind: tuple[Any, ...], settings: TrialSettings, source: str, work: float
    ) -> tuple[dict[str, Any], float] | None:
        found = []
        for past in self._near.get(kind, ())[:CANDIDATES]:
            other = _work_of(past["config"], settings, source)
            if other:
                found.append((abs(math.log(other / work)), past, other))
        if not found:
            return None
        _, past, other = min(found, key=lambda item: item[0])
        return past, other


def machine_for(scaling: ScalingSettings) -> dict[str, Any]:
    """The columns `device` and `cpu_threads` that a trial of this size would get on this machine."""
    if scaling.gpus_per_worker > 0:
        import torch

        name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
        return {"device": name, "cpu_threads": None}
    return {"device": _processor(), "cpu_threads": max(1, int(scaling.cpus_per_worker))}


def calibrate(trials: Sequence[Trial]) -> Calibration:
    """Train a few steps of the cheapest model of `trials` in this process, and time them.

    Returns:
        What a step of that model takes.

    Raises:
        StudyError: The steps did not end well; the message is their own.
    """
    from study.train.trial import train_trial

    distinct = {(trial.settings.model, trial.settings.memory): trial for trial in trials}
    cheapest = min(distinct.values(), key=lambda trial: work_per_example(trial.settings) or math.inf)
    settings = cheapest.settings
    examples = task_of(settings).training_examples(settings)
    batch = min(examples, max(1, settings.train.batch_size // settings.scaling.workers))
    few = replace(
        settings,
        data=replace(settings.data, train_examples=min(examples, CALIBRATION_STEPS * batch)),
        train=replace(settings.train, steps=CALIBRATION_STEPS, tokens=None, batch_size=batch),
        evaluate=EvaluateSettings(examples=batch),
        scaling=replace(settings.scaling, workers=1),
        probe=replace(settings.probe, enabled=False),
    )
    device = "cpu" if not settings.scaling.gpus_per_worker else None
    row = train_trial(replace(cheapest, settings=few), device=device).trial
    work = work_per_example(settings)
    if row["outcome"] != "ok" or not row["step_time_s"] or not work:
        raise StudyError(
            settings.model.name,
            value=row["outcome"],
            rule=f"the calibration must end well ({row['error_message'] or 'no step was timed'})",
            remedy="leave --calibrate out, or repair what the message names",
        )
    return Calibration(
        model=f"{settings.model.name} of depth {settings.model.depth}, width {settings.model.width:g}",
        examples=examples,
        example_s=row["step_time_s"] / batch,
        work=work,
    )


def work_per_example(settings: TrialSettings) -> float | None:
    """Floating-point operations of one training example; None if they cannot be counted."""
    task = task_of(settings)
    alike = replace(
        TrialSettings(), model=settings.model, memory=MemorySettings(strategy="store"), code=settings.code
    )
    try:
        forward = _forward_work(alike, task, task.shape(settings))
    except StudyError:  # a network of one's own whose builder computes with numbers
        return None
    return None if forward is None else forward * (4 if strategy_of(settings).recomputes else 3)


@lru_cache(maxsize=1024)
def _forward_work(settings: TrialSettings, task: Task, shape: Any) -> float | None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from revmodels.operations import operation_counter
    from study.train.build import build_model

    with FakeTensorMode():
        network = task.adapted(build_model(settings, shape))
        batch = task.blank(shape, 2, settings)
        with operation_counter() as counter, torch.no_grad():
            network(*batch.inputs)
    return counter.get_total_flops() / 2 or None


def _work_of(config: Mapping[str, Any], like: TrialSettings, source: str) -> float | None:
    """The work of a past trial; its images are those of `like` if the source is the same, else built in."""
    past = config["data"]
    if past["source"] == source:
        length = past.get("context_length")
        data = replace(like.data, image_size=past["image_size"], context_length=length)
    elif past["source"].partition(":")[0] in ("parquet", "folder"):
        return None
    else:
        data = DataSettings(name=past["source"], image_size=past["image_size"])
    strategy = config["memory"]["strategy"]
    model = {key: value for key, value in config["model"].items() if key != "source"}
    for key in ("options", "coupling_numbers"):
        model[key] = Options(model.get(key, {}))
    try:
        return work_per_example(
            TrialSettings(
                data=data,
                task=like.task,
                model=ModelSettings(**model),
                memory=MemorySettings(strategy=strategy),
                code=like.code,
            )
        )
    except StudyError:
        return None  # The past trial's data set or model is not at hand.


def _key(config: Mapping[str, Any], row: Row) -> str:
    named: dict[str, Any] = {name: config.get(name) for name in _KINDS}
    return _text({**named, "batch": row["batch_size"], "machine": _machine_of(row)})


def _machine_of(row: Row) -> tuple[Any, Any]:
    device = row["device"]
    on_cpu = device is not None and device.endswith("cores)")
    return device, row["cpu_threads"] if on_cpu else None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@lru_cache(maxsize=1)
def _processor() -> str:
    from study.provenance import provenance

    return str(provenance("cpu")["device"])
